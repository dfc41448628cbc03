"""Small cells for tests: phantoms with truth, and boxes and balls by rule."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from cytomill.phantoms.partitioning import NUCLEUS_LABEL, CellPhantom
from cytomill.phantoms.tissue import TissuePhantom
from cytomill.storage.stores import open_store

VOXEL_SIZE_NM = (150.0, 100.0, 100.0)


def ball(shape, centre, radius) -> np.ndarray:
    """Voxels within half-axes of a centre, bool."""
    grid = np.ogrid[tuple(slice(0, n) for n in shape)]
    parts = zip(grid, centre, np.broadcast_to(radius, 3), strict=True)
    return sum(((x - c) / r) ** 2 for x, c, r in parts) <= 1


def whole(shape):
    """The region of a whole volume."""
    return tuple((0, n) for n in shape)


def spots(cells: np.ndarray, count: int, radius=2.0, seed: int = 4) -> np.ndarray:
    """Labels of balls about voxels of the cells, drawn by chance; they reach over every boundary."""
    rng = np.random.default_rng(seed)
    places = np.argwhere(cells > 0)
    labels = np.zeros(cells.shape, np.uint32)
    for number, place in enumerate(places[rng.choice(len(places), count, replace=False)], 1):
        labels[ball(cells.shape, place, radius)] = number
    return labels


def single_cell(scale: float = 0.3) -> dict[str, np.ndarray]:
    """A dented cell: `cell` (1 cytoplasm, 2 nucleus), and `organelle`, labels."""
    phantom = CellPhantom("dent", None, scale)
    cell = phantom.ray_position(whole(phantom.shape))[0].astype(np.uint8)
    return {"cell": cell, "organelle": spots(cell, 60)}


def tissue(cells: tuple[int, int, int] = (1, 2, 2), scale: float = 0.6) -> dict[str, np.ndarray]:
    """Cell i with nucleus i, cut by the volume at two faces: `cells`, `nuclei`, `organelle`."""
    phantom = TissuePhantom(cells, scale=scale, seed=2)
    labels, nuclei, _ = phantom.draw(whole(phantom.shape))
    labels, nuclei = labels.astype(np.uint16), nuclei.astype(np.uint16)
    return {"cells": labels, "nuclei": nuclei, "organelle": spots(labels, 30)}


def masks_of(cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nucleus and whole cell of :func:`single_cell`'s labels, bool."""
    return cell == NUCLEUS_LABEL, cell > 0


def save(folder: Path, **volumes: np.ndarray) -> dict[str, Path]:
    """Write volumes as NPY by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.npy" for name in volumes}
    for name, path in paths.items():
        np.save(path, volumes[name])
    return paths


def save_tiff(path: Path, volume: np.ndarray) -> Path:
    """Write a volume as pages of a TIFF."""
    tifffile.imwrite(path, volume, photometric="minisblack")
    return path


def table(name: str, path: Path, options: str, size_nm=VOXEL_SIZE_NM) -> str:
    """The ``[[dataset]]`` of a campaign file."""
    return (
        f'[[dataset]]\nname = "{name}"\npipeline = "partitioning"\ninput = "{path}"\n'
        f"voxel_size_nm = {list(size_nm)}\n[dataset.partitioning]\n{options}\n"
    )


def inputs(folder: Path, organelles: bool = True) -> Mapping[str, str]:
    """A single cell and a tissue on disk: their ``[[dataset]]`` tables by name."""
    one, many = single_cell(), tissue()
    single = save(folder / "single", **one, mask=one["organelle"] > 0)
    several = save(folder / "tissue", **many)
    named = f'organelles = ["granules={single["organelle"]}", "blobs={single["mask"]}"]'
    of_tissue = f'organelles = ["granules={several["organelle"]}"]'
    return {
        "single": table(
            "single", single["cell"], "ne_labels = [2]\nxvg = true\n" + (named if organelles else "")
        ),
        "tissue": table(
            "tissue",
            several["cells"],
            f'nucleus = "{several["nuclei"]}"\nxvg = true\n' + (of_tissue if organelles else ""),
        ),
    }


def write_campaign(
    folder, text, options="bootstrap = 20\nn_shells = 5\nzarr_chunks = [4, 64, 64]", run=""
) -> Path:
    """Write a campaign file: `text` are its datasets; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "campaign.toml"
    head = f'[campaign]\noutput = "{folder / "results"}"\n[run]\n{run}\n[partitioning]\n{options}\n'
    path.write_text(f"{head}[nanoparticles]\nzarr_chunks = [1, 64, 64]\nshard_shape = [2, 64, 128]\n{text}")
    return path


def table_of(results: Path, dataset: str, name: str) -> pd.DataFrame:
    """A table of a dataset's results."""
    return pd.read_parquet(results / "datasets" / dataset / f"tables/{name}.parquet")


def volume_of(results: Path, dataset: str, group: str, spacing: str = "50-10-10") -> np.ndarray:
    """A volume of a dataset's results."""
    return open_store(results / "datasets" / dataset / "store.zarr").open(f"{group}/{spacing}").read()
