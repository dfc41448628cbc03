"""Spherical organelles with a known radial enrichment, for the cell phantoms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from cytomill.phantoms.star_surface import StarSurface, sphere_directions

#: Points on a granule that must lie in the cytoplasm.
_SKIN = 60


@dataclass(frozen=True)
class Granules:
    """Granules of one volume; granule i has the label i + 1.

    Parameters
    ----------
    centres_nm : (N, 3) float64 ndarray
        (Z, Y, X), from the centre of the volume's first voxel.
    radius_nm : float
    t : (N,) float64 ndarray
        Position of each centre along the ray, 0 at the NE, 1 at the PM.
    voxel_size_nm : tuple of float
        (Z, Y, X).
    """

    centres_nm: np.ndarray
    radius_nm: float
    t: np.ndarray
    voxel_size_nm: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.centres_nm)

    def draw(self, region: tuple[tuple[int, int], ...]) -> np.ndarray:
        """Label volume of a region (half-open ranges Z, Y, X): (Z, Y, X) uint32, 0 between granules."""
        out = np.zeros(tuple(stop - start for start, stop in region), np.uint32)
        size = np.asarray(self.voxel_size_nm)
        first = np.array([start for start, _ in region])
        apart = self.centres_nm / size - first
        reach = self.radius_nm / size
        near = np.flatnonzero(np.all((apart > -reach - 1) & (apart < np.array(out.shape) + reach), axis=1))
        _stamp(out, apart[near], near + 1, self.radius_nm, size)
        return out


@njit(nogil=True, cache=True)
def _stamp(out, centres, labels, radius, size):
    for n in range(len(centres)):
        z, y, x = centres[n]
        reach = radius / size
        for i in range(max(int(np.ceil(z - reach[0])), 0), min(int(z + reach[0]) + 1, out.shape[0])):
            dz = (i - z) * size[0]
            for j in range(max(int(np.ceil(y - reach[1])), 0), min(int(y + reach[1]) + 1, out.shape[1])):
                dy = (j - y) * size[1]
                for k in range(max(int(np.ceil(x - reach[2])), 0), min(int(x + reach[2]) + 1, out.shape[2])):
                    dx = (k - x) * size[2]
                    if dz * dz + dy * dy + dx * dx <= radius * radius:
                        out[i, j, k] = labels[n]


def _position(ne: StarSurface, pm: StarSurface, points: np.ndarray) -> np.ndarray:
    """Position of points (N, 3) along their rays; below 0 in the nucleus, above 1 outside the cell."""
    r = np.linalg.norm(points, axis=-1)
    directions = points / np.maximum(r, 1e-12)[..., None]
    flat = directions.reshape(-1, 3)
    inner, outer = ne.radius(flat).reshape(r.shape), pm.radius(flat).reshape(r.shape)
    return (r - inner) / (outer - inner)


def place_granules(
    ne: StarSurface,
    pm: StarSurface,
    radius: float,
    pitch: float,
    step_t: float,
    enrichment: float,
    fill: float,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Places for granules between two surfaces about the origin, lengths in the surfaces' unit.

    Places are those of a jittered lattice, so that granules never touch; one is taken with the
    probability that its position asks for, and only if the whole granule lies in the cytoplasm.

    Parameters
    ----------
    ne, pm : StarSurface
    radius, pitch : float
        Of a granule, and of the lattice.
    step_t, enrichment, fill : float
        Beyond the position `step_t` a place is taken with probability `fill`, before it with
        ``fill / enrichment``.
    seed : int

    Returns
    -------
    centres : (N, 3) float64 ndarray
    t : (N,) float64 ndarray

    Raises
    ------
    ValueError
        If the enrichment is not positive, or `fill` leads to probabilities above 1.
    """
    if not enrichment > 0 or not 0 < fill <= 1 or fill / enrichment > 1:
        raise ValueError(
            f"granules need a positive enrichment and places taken with probabilities of at most 1, "
            f"found enrichment {enrichment} and fill {fill}"
        )
    rng = np.random.default_rng([17, seed])
    most = pm.bounds[1]
    axis = np.arange(-most, most + pitch, pitch)
    places = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    # A quarter of the pitch stays free between two granules that jitter towards each other.
    free = max(0.75 * pitch / 2 - radius, 0.0)
    places += rng.uniform(-free, free, places.shape)
    t = _position(ne, pm, places)
    wanted = np.where(t >= step_t, fill, fill / enrichment)
    chosen = (rng.random(len(places)) < wanted) & (t > 0) & (t < 1)
    places, t = places[chosen], t[chosen]
    skin = _position(ne, pm, places[:, None] + radius * sphere_directions(_SKIN))
    fits = np.all((skin > 0) & (skin < 1), axis=1)
    return places[fits], t[fits]
