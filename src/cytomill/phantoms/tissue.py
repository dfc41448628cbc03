"""A tissue of many small cells in one volume: cell i with nucleus i, and the truth about each.

Cells stand on a jittered lattice, each of its own size and shape; some touch (a voxel that two cells claim
goes to the one in which it lies deeper), and two faces of the volume cut the cells that stand there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from cytomill.phantoms.granules import Granules, place_granules
from cytomill.phantoms.star_surface import StarSurface, paint, turn

#: One length unit, the default voxel size.
UNIT_NM = 108.0
#: Mean spacing of the cells and largest jitter of one, in units.
PITCH, JITTER = 34.0, 3.5
#: The first face along Z and the last along X cut this much off the outermost cells.
CUT = 9.0
#: Half-axes of the cells, share of the nucleus in them.
AXES, SHARE = (12.0, 17.0), (0.42, 0.55)
GRANULE_RADIUS, GRANULE_PITCH = 1.6, 7.0


class TissuePhantom:
    """Many cells with truth, drawn region by region.

    Parameters
    ----------
    cells : tuple of int
        Cells along each axis (Z, Y, X).
    voxel_size_nm : sequence of float
        (Z, Y, X) in nm; the cells' size in nm does not depend on it.
    scale : float
        Enlarges the cells.
    seed : int
        Everything random follows from it.

    Attributes
    ----------
    shape : tuple of int
        Voxels (Z, Y, X).
    count : int
        Cells; their labels are 1 to `count`.
    centres : (count, 3) float64 ndarray
        Of the cells, as voxel indices.

    Raises
    ------
    ValueError
        If a number is not positive.
    """

    def __init__(
        self,
        cells: tuple[int, int, int] = (6, 6, 6),
        voxel_size_nm: Sequence[float] = (UNIT_NM,) * 3,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        size = tuple(map(float, voxel_size_nm))
        if len(cells) != 3 or min(cells) < 1 or len(size) != 3 or not min(size) > 0 or not scale > 0:
            raise ValueError(
                f"a tissue needs three positive numbers of cells and of voxel sizes (Z, Y, X) and a positive "
                f"scale, found {cells}, {size} and {scale}"
            )
        self.voxel_size_nm, self.seed = size, int(seed)
        self._unit_nm = UNIT_NM * scale
        self._step = np.asarray(size) / self._unit_nm
        rng = np.random.default_rng([29, seed])
        lattice = np.stack(np.meshgrid(*(np.arange(n) for n in cells), indexing="ij"), -1).reshape(-1, 3)
        self.count = len(lattice)
        jitter = rng.uniform(-JITTER, JITTER, lattice.shape)
        self._centres = (lattice + 0.5) * PITCH + jitter + (-CUT, 4.0, 4.0)
        extent = np.asarray(cells) * PITCH + (6.0 - CUT, 8.0, 4.0 - CUT)
        self.shape = tuple(int(n) for n in np.maximum(np.ceil(extent / self._step), 1))
        self._surfaces = [self._surface(rng) for _ in range(self.count)]

    @staticmethod
    def _surface(rng: np.random.Generator) -> tuple[StarSurface, StarSurface]:
        axes = rng.uniform(*AXES, 3)
        turned = turn(int(rng.integers(3)), rng.uniform(0, 180))
        way = rng.standard_normal(3)
        wave = (0.06, *map(float, 4.0 * way / np.linalg.norm(way)), float(rng.uniform(0, 2 * np.pi)))
        shift = rng.uniform(-1.5, 1.5, 3)
        pm = StarSurface(tuple(axes), turned, tuple(shift), waves=(wave,))
        return StarSurface(tuple(axes * rng.uniform(*SHARE)), turned), pm

    @property
    def centres(self) -> np.ndarray:
        """Voxel indices (count, 3) of the cells' centres."""
        return self._centres / self._step

    def draw(self, region: tuple[tuple[int, int], ...] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw a region.

        Parameters
        ----------
        region : tuple of (int, int)
            Half-open ranges (Z, Y, X); axes left out are whole.

        Returns
        -------
        cells, nuclei : (Z, Y, X) uint16 ndarray
            Label of the cell (its nucleus included), and of the nucleus.
        t : (Z, Y, X) float32 ndarray
            Position along the ray from the centre of a voxel's own cell as if it stood alone; NaN outside
            the cytoplasm.
        """
        region = tuple(region) + tuple((0, n) for n in self.shape[len(region) :])
        extent = tuple(stop - start for start, stop in region)
        first = np.array([start for start, _ in region])
        cells, nuclei = np.zeros(extent, np.uint16), np.zeros(extent, np.uint16)
        nearest, t = np.full(extent, np.inf, np.float32), np.full(extent, np.nan, np.float32)
        for index, (ne, pm) in enumerate(self._surfaces):
            centre, limit = self._centres[index], pm.bounds[1]
            low = np.maximum(np.ceil((centre - limit) / self._step).astype(int) - first, 0)
            high = np.minimum(np.floor((centre + limit) / self._step).astype(int) + 1 - first, extent)
            if np.any(low >= high):
                continue
            box = tuple(slice(a, b) for a, b in zip(low, high))
            origin = (low + first) * self._step
            images = (cells[box], nuclei[box], nearest[box], t[box])
            paint(ne.packed, pm.packed, limit, centre, origin, self._step, index + 1, *images)
        return cells, nuclei, t

    @cached_property
    def granules(self) -> Granules:
        """Granules of all cells, three times as dense beyond half of the way to the PM."""
        places, positions = [], []
        for index, (ne, pm) in enumerate(self._surfaces):
            seed = self.seed * 100_003 + index
            found, t = place_granules(ne, pm, GRANULE_RADIUS, GRANULE_PITCH, 0.5, 3.0, 0.5, seed)
            places.append((found + self._centres[index]) * self._unit_nm)
            positions.append(t)
        radius = GRANULE_RADIUS * self._unit_nm
        return Granules(np.concatenate(places), radius, np.concatenate(positions), self.voxel_size_nm)


class TissueTally:
    """Truth about the cells of a tissue, gathered from the slabs as they are drawn."""

    def __init__(self, phantom: TissuePhantom) -> None:
        self._phantom = phantom
        self._voxels, self._nucleus = (np.zeros(phantom.count + 1, np.int64) for _ in range(2))
        self._granules = np.zeros(phantom.count + 1, np.int64)
        self._faces: list[set[str]] = [set() for _ in range(phantom.count + 1)]
        self._touching = np.zeros(phantom.count + 1, bool)
        self._above: np.ndarray | None = None

    def add(self, first: int, cells: np.ndarray, nuclei: np.ndarray, granules: np.ndarray) -> None:
        """Add a slab that begins at slice `first`; slabs come in order."""
        length = self._phantom.count + 1
        self._voxels += np.bincount(cells.ravel(), minlength=length)
        self._nucleus += np.bincount(nuclei.ravel(), minlength=length)
        self._granules += np.bincount(cells[granules > 0], minlength=length)
        depth = self._phantom.shape[0]
        ends = [
            ("z0", cells[:1] if first == 0 else None),
            ("z1", cells[-1:] if first + len(cells) == depth else None),
            ("y0", cells[:, 0]),
            ("y1", cells[:, -1]),
            ("x0", cells[:, :, 0]),
            ("x1", cells[:, :, -1]),
        ]
        for name, face in ends:
            for label in () if face is None else np.unique(face):
                self._faces[label].add(name)
        pairs = [(cells[1:], cells[:-1]), (cells[:, 1:], cells[:, :-1]), (cells[..., 1:], cells[..., :-1])]
        if self._above is not None:
            pairs.append((cells[0], self._above))
        for one, other in pairs:
            meet = (one != other) & (one > 0) & (other > 0)
            self._touching[one[meet]] = self._touching[other[meet]] = True
        self._above = cells[-1].copy()

    def table(self) -> pd.DataFrame:
        """One row a cell: label, centre (nm), voxels of cell, nucleus and granules, faces, neighbours."""
        centres = self._phantom.centres * self._phantom.voxel_size_nm
        return pd.DataFrame(
            {
                "cell": np.arange(1, self._phantom.count + 1),
                **{f"centre_{name}_nm": centres[:, axis] for axis, name in enumerate("zyx")},
                "cell_voxels": self._voxels[1:],
                "nucleus_voxels": self._nucleus[1:],
                "cytoplasm_voxels": (self._voxels - self._nucleus)[1:],
                "granule_voxels": self._granules[1:],
                "cut_faces": [",".join(sorted(faces)) for faces in self._faces[1:]],
                "touching": self._touching[1:],
            }
        )
