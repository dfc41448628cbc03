"""Radial partitioning against the truth of phantoms, and the same real cell at two samplings.

    python benchmarks/partitioning_accuracy.py [--quick] [--refine 2]

Each method is compared with its own definition: `edt` and `pairs_edt` with the distances to the analytic
surfaces, `ray` and `pairs` with the position along the ray from the centre, `laplace` with the same on a
finer grid (on the spheres all definitions are one).  The published method is its plain rendering.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
import plain_pairs
from partitioning import GOLDEN, SHELLS, raw_masks
from scipy import ndimage

from cytomill.partitioning.masks import clean_pair
from cytomill.partitioning.shells import cell_shells, radial_position
from cytomill.phantoms.partitioning import CellPhantom, make_cell_phantom

ISOTROPIC_NM, ANISOTROPIC_NM = (108.0, 108.0, 108.0), (290.0, 108.0, 108.0)
FIELDS = ("edt", "ray", "laplace")
METHODS = ("published", *FIELDS, "pairs", "pairs_edt")
#: Start of the crop, in downsampled voxels (see the reference data's own page).
CROP_START = {
    "GIP": {3: (16, 5, 24), 6: (7, 2, 11)},
    "TAK": {3: (18, 4, 17), 6: (8, 1, 8)},
}


def shells_of_truth(t: np.ndarray) -> np.ndarray:
    """Shell ids of a position, 0 where it is NaN."""
    return np.where(np.isfinite(t), np.minimum(SHELLS * np.nan_to_num(t), SHELLS - 0.5) // 1 + 1, 0).astype(
        np.uint8
    )


def far_from_boundary(found: np.ndarray, truth: np.ndarray) -> int:
    """Wrong voxels whose shell is not between the true ones of their 26 neighbours and their own.

    Between, and not among: where a shell is thinner than a voxel, its boundaries pass between two voxels of
    other shells.
    """
    inside = truth > 0
    least = ndimage.minimum_filter(np.where(inside, truth, SHELLS + 1), 3)
    most = ndimage.maximum_filter(np.where(inside, truth, 0), 3)
    return int(np.count_nonzero(inside & ((found < least) | (found > most))))


def refined_laplace(phantom: CellPhantom, times: int) -> np.ndarray:
    """Laplace position of a phantom from a grid `times` as fine, at the phantom's own voxels."""
    size = tuple(s / times for s in phantom.voxel_size_nm)
    fine = make_cell_phantom(phantom.kind, size, phantom.scale)
    t = radial_position(fine.nucleus, fine.cell, "laplace", size)
    start = np.rint((phantom.origin_nm - fine.origin_nm) / size).astype(int)
    # A coarse grid may begin or end in background beyond the fine one.
    places = [
        np.clip(first + times * np.arange(n), 0, m - 1)
        for first, n, m in zip(start, phantom.shape, fine.shape)
    ]
    picked = t[np.ix_(*places)]
    return np.where(phantom.cytoplasm, picked, np.nan)


def row(cells: list[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def judged(
    name: str, method: str, found: np.ndarray, truth_t: np.ndarray, t: np.ndarray | None, definition: str
) -> str:
    """One method's line: share of voxels right, error of t, thickness of shells, what is left over."""
    truth = shells_of_truth(truth_t)
    inside = truth > 0
    right = np.mean(found[inside] == truth[inside])
    error = "" if t is None else f"{np.nanmean(np.abs(t[inside] - truth_t[inside])):.4f}"
    thickness = ""
    if name.startswith("spheres"):
        # The true positions at which the method's shells begin and end.
        ends = [np.quantile(truth_t[inside], np.mean(found[inside] <= k)) for k in range(SHELLS + 1)]
        thickness = f"{np.abs(np.diff(ends) * SHELLS - 1).max():.1%}"
    cells = [name, method, definition, f"{right:.2%}", error, thickness]
    return row([*cells, str(far_from_boundary(found, truth)), str(int(np.count_nonzero(found[inside] == 0)))])


def phantom_rows(kind: str, voxel_size_nm: tuple[float, float, float], refine: int, scale: float, methods):
    """Yield the lines of one phantom."""
    phantom = make_cell_phantom(kind, voxel_size_nm, scale)
    name = f"{kind} {'x'.join(f'{s:g}' for s in voxel_size_nm)} nm"
    masks = phantom.nucleus, phantom.cell
    if voxel_size_nm == ISOTROPIC_NM and "published" in methods:
        published = plain_pairs.partition(*masks, SHELLS).astype(np.uint8)
        yield judged(name, "published", published, phantom.t_ray, None, "ray")
        if kind != "spheres":
            yield judged(name, "published", published, phantom.t_edt, None, "distances")
    truths: dict[str, tuple[str, Callable[[], np.ndarray]]] = {
        "edt": ("distances", lambda: phantom.t_edt),
        "ray": ("ray", lambda: phantom.t_ray),
        "laplace": (f"grid {refine} times as fine", lambda: refined_laplace(phantom, refine)),
        "pairs": ("ray", lambda: phantom.t_ray),
        "pairs_edt": ("distances", lambda: phantom.t_edt),
    }
    for method in (name for name in truths if name in methods):
        definition, truth = truths[method]
        t, true = None, phantom.t_ray if kind == "spheres" else truth()
        if method in FIELDS:
            t = radial_position(*masks, method, voxel_size_nm)
            found = shells_of_truth(t)
        else:
            found = cell_shells(*masks, SHELLS, method, "edt", voxel_size_nm)
        yield judged(name, method, found, true, t, "all" if kind == "spheres" else definition)


def agreement(cell: str, field: str) -> str:
    """Line of a real cell at 3 times and 6 times downsampling: coarse t at the fine voxels' centres."""
    t, cytoplasm = {}, {}
    for times in (3, 6):
        nucleus, whole, _ = clean_pair(*raw_masks(f"{cell} f{times}"))
        t[times] = radial_position(nucleus, whole, field, (10.0 * times,) * 3)
        cytoplasm[times] = whole & ~nucleus
    fine = np.argwhere(cytoplasm[3])
    place = ((fine + CROP_START[cell][3] + 0.5) * 3) / 6 - 0.5 - CROP_START[cell][6]
    nearest = np.rint(place).astype(int)
    held = np.all((nearest >= 0) & (nearest < cytoplasm[6].shape), axis=1)
    held[held] = cytoplasm[6][tuple(nearest[held].T)]
    place, fine = place[held].T, fine[held].T
    # Interpolated between cytoplasm voxels only.
    weight = ndimage.map_coordinates(cytoplasm[6].astype(np.float32), place, order=1)
    value = ndimage.map_coordinates(np.nan_to_num(t[6]), place, order=1) / np.maximum(weight, 1e-6)
    coarse, own = shells_of_truth(value).astype(int), shells_of_truth(t[3][tuple(fine)]).astype(int)
    apart = np.abs(coarse - own)
    return row([cell, field, f"{np.mean(apart == 0):.1%}", f"{np.mean(apart <= 1):.2%}", f"{apart.size}"])


def main(arguments: list[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="phantoms of half the size")
    parser.add_argument("--refine", type=int, default=2, help="how much finer the grid of laplace's truth is")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    options = parser.parse_args(arguments)
    heads = ("phantom", "method", "truth", "right", "mean error of t", "worst shell", "far", "unassigned")
    print(f"{row(list(heads))}\n|---|---|---|--:|--:|--:|--:|--:|")
    scale = 0.5 if options.quick else 1.0
    for kind in ("spheres", "dent"):
        for size in (ISOTROPIC_NM, ANISOTROPIC_NM):
            for line in phantom_rows(kind, size, options.refine, scale, options.methods):
                print(line, flush=True)
    fields = [name for name in FIELDS if name in options.methods]
    if GOLDEN.is_dir() and fields:
        print(
            "\n| real cell, 3x against 6x | field | same shell | within one | voxels |\n|---|---|--:|--:|--:|"
        )
        for cell in CROP_START:
            for field in fields:
                print(agreement(cell, field), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
