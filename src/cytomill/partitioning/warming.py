"""One small cell through every compiled kernel, so that no rank compiles while others wait."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from cytomill.kernels.keyed_rows import merge_rows
from cytomill.kernels.labelling import label_volume
from cytomill.kernels.mask_runs import encode_runs, restrict_labels
from cytomill.kernels.object_tally import tally_objects
from cytomill.kernels.tally import tally_cells, tally_organelle
from cytomill.partitioning.bootstrap import generator, resampled_totals
from cytomill.partitioning.cell import partition_cell
from cytomill.partitioning.config import PartitioningConfig
from cytomill.partitioning.distances import censored
from cytomill.partitioning.masks import clean_pair
from cytomill.partitioning.painting import Block

SHAPE = (16, 20, 24)
SIZE_NM = (30.0, 20.0, 20.0)


def warm_kernels(methods: Collection[tuple[str, str]]) -> None:
    """Call every kernel once, with each type that it is compiled for.

    Parameters
    ----------
    methods : collection of (str, str)
        Method and field of the datasets to come; distances are needed by all of them.
    """
    distance = sum(((i - n / 2) / n) ** 2 for i, n in zip(np.indices(SHAPE), SHAPE, strict=True))
    for dtype in (np.uint8, np.uint16, np.int32, np.uint32, bool):
        runs = encode_runs((distance < 0.1).astype(dtype))
    restrict_labels(runs, runs)
    nucleus, cell, _ = clean_pair(distance < 0.02, distance < 0.1)
    for method, field in sorted({*methods, ("normalized", "edt")}):
        config = PartitioningConfig(method=method, field=field)
        fields, _ = partition_cell(nucleus, cell, SIZE_NM, np.zeros((3, 2), bool), config, 1.0)
    censored(distance.astype(np.float32), cell, SIZE_NM, np.array([[True, False]] * 3))
    resampled_totals(np.ones((3, 2)), np.zeros(3, int), generator(0), 2)
    region = tuple((0, n) for n in SHAPE)
    part = (*region[:2], (2, SHAPE[2] - 2))
    wide = (*region[:2], (-2, SHAPE[2] + 2))
    for other in (part, wide, (*region[:2], (2, SHAPE[2] + 2)), region):  # one is a part of the other, or not
        block = Block(other)
        block.paint(1, region, fields)
    own = block.fields
    where = (block.territory, own.compartment, own.shell, 8, own.position)
    labels = label_volume(np.where(distance < 0.01, np.uint8(255), np.uint8(0)), 0.5)
    merge_rows(tally_cells(*where, own.distance_ne, own.distance_pm)[0])
    for kind in (np.int32, np.uint8, np.uint16, np.uint32, bool):
        tally_organelle(labels.astype(kind), *where)
    for kind in (np.int32, np.uint8, np.uint16, np.uint32):
        tally_objects(labels.astype(kind), *where, own.distance_ne, own.distance_pm)
