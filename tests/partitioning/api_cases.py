"""Cells for tests of the class API: golden cases, and balls in balls."""

import numpy as np


def load_case(shared_dir, case):
    """Nucleus, cell and true shells of a golden case."""
    with np.load(shared_dir / f"golden/partitioning/{case}_input.npz") as arrays:
        shape = tuple(arrays["shape"])
        ne, pm = (
            np.unpackbits(arrays[key])[: np.prod(shape)].reshape(shape).astype(bool) for key in ("ne", "pm")
        )
        truth = {}
        for key in ("t_ray", "t_edt"):
            if key in arrays:
                truth[key] = np.zeros(shape, np.uint8)
                t = arrays[key] / 65535
                truth[key][pm & ~ne] = np.minimum(8, np.floor(8 * t) + 1)
    return ne, pm, truth


def balls(shape=(40, 44, 48), radii=(8, 18), centre=None):
    """Nucleus and cell: balls about the same centre."""
    centre = np.array(shape) / 2 - 0.5 if centre is None else np.asarray(centre)
    places = np.indices(shape).reshape(len(shape), -1).T
    distance = np.linalg.norm(places - centre, axis=1).reshape(shape)
    return distance <= radii[0], distance <= radii[1]


def whole(partitioning, ne, pm, **options):
    """The documented way from masks to shells."""
    _, ne_edge, pm_edge = partitioning.extract_ne_pm_edges(pm, ne)
    return partitioning.create_nepm_radial_partitions(
        ne_edge, pm_edge, pm.shape, pm_mask=pm, ne_mask=ne, **options
    )
