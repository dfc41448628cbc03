"""Partitions for tests of coordinates, of XVG files, and of the RDF over them."""

import json

import numpy as np


def golden(shared_dir, case):
    folder = shared_dir / "golden/partitioning"
    arrays_ = np.load(folder / f"{case}_golden.npz")
    shape = tuple(arrays_["shape"])
    organelle = np.unpackbits(arrays_["organelle"])[: np.prod(shape)].reshape(shape).astype(bool)
    facts = json.loads((folder / f"{case}_golden.json").read_text())["new"]
    return arrays_["partition_pure"], organelle, facts


def shells(shape=(6, 9, 11), n=4, seed=3):
    return np.random.default_rng(seed).integers(0, n + 1, shape).astype(np.uint8)
