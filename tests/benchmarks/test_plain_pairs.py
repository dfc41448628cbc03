"""The plain rendering of the pair method says what the published method says."""

import json

import numpy as np
import plain_pairs as plain
import pytest
from scipy import ndimage

from cytomill.phantoms.partitioning import make_cell_phantom


def _unpacked(bits, shape):
    return np.unpackbits(bits)[: np.prod(shape)].reshape(shape).astype(bool)


@pytest.mark.parametrize("case", ["GIP_30_1535_f6", "TAK_30_2213_f6"])
def test_partitions_are_those_of_the_published_method(shared_dir, case):
    folder = shared_dir / "golden" / "partitioning"
    stored = np.load(folder / f"{case}_input.npz")
    nucleus, cell = (_unpacked(stored[name], tuple(stored["shape"])) for name in ("ne", "pm"))
    golden = np.load(folder / f"{case}_golden.npz")
    said = json.loads((folder / f"{case}_golden.json").read_text())["new"]

    ne, pm = plain.edges(nucleus, cell)
    assert (len(ne), len(pm)) == (said["n_ne_edge"], said["n_pm_edge"])
    pairs = plain.pairs(ne, pm, ne.mean(axis=0))
    assert np.array_equal(pairs, golden["pairs"])
    assert [len(s) for s in plain.shell_surfaces(pairs, cell, 7)] == said["shell_sizes"]
    assert np.array_equal(plain.partition(nucleus, cell), golden["partition_pure"])


def test_every_cytoplasm_voxel_of_a_phantom_has_a_shell():
    phantom = make_cell_phantom("spheres", scale=0.5)
    result = plain.partition(phantom.nucleus, phantom.cell)
    assert np.array_equal(result > 0, phantom.cytoplasm)
    assert set(np.unique(result)) == set(range(9))
    # Shells are nested: each is reached from the one before it.
    for shell in range(1, 8):
        assert (ndimage.binary_dilation(result == shell) & (result == shell + 1)).any()
