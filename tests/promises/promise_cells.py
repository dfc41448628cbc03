"""Campaigns of small cells whose calls are written down."""

from collections.abc import Iterable
from pathlib import Path

from promise_campaigns import Promised

#: Stages of the partitioning pipeline that compute something in units, in order.
STAGES = (
    "survey", "cells", "planes", "columns", "shells", "xvg", "contents", "components", "organelles", "places",
)  # fmt: skip
#: Layers of 8 slices: several blocks a volume; few resamplings: intervals are no matter here.
OPTIONS = "zarr_chunks = [8, 32, 32]\nbootstrap = 20\nn_shells = 5"
#: Several bands a cell, and shards that do not span a plane.
LOW = {"cytomill.partitioning.slab_stages.BAND_VOXELS": 30_000}
BY_SLABS = "largest_crop = 40000"


class PromisedCells(Promised):
    """A campaign of cells.

    Parameters
    ----------
    folder : Path
        Everything is put there.
    tables : iterable of str
        ``[[dataset]]`` tables.
    run, options : str
        Lines of ``[run]``, and of ``[partitioning]`` besides :data:`OPTIONS`.
    """

    def __init__(self, folder: Path, tables: Iterable[str], run: str = "", options: str = "") -> None:
        text = f"[run]\n{run}\n[partitioning]\n{OPTIONS}\n{options}\n"
        self.write(folder, text + "".join(tables))
        self.lower(LOW)
