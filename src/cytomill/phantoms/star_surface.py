"""Closed surfaces that every ray from a centre crosses once, evaluated in closed form.

A surface is an ellipsoid (turned, off centre) times a Gaussian dent times a sum of plane waves over the
directions, so that lobes and roughness have a radius that is known exactly along every ray.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numba import njit
from scipy.spatial import cKDTree

#: Where the waves begin in a packed surface.
_WAVES = 17
#: Directions that bound the radii of a surface, and by how much the bounds are widened.
_PROBES, _SLACK = 20_000, 0.03


def turn(axis: int, degrees: float) -> np.ndarray:
    """Rotation matrix (3, 3) about one of the axes Z, Y, X."""
    angle = np.deg2rad(degrees)
    matrix = np.eye(3)
    first, second = (k for k in range(3) if k != axis)
    matrix[first, first] = matrix[second, second] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix


def sphere_directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors (Z, Y, X), evenly spread over the sphere (a Fibonacci spiral)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    angle = index * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - z * z)
    return np.stack([z, ring * np.cos(angle), ring * np.sin(angle)], -1)


@dataclass(frozen=True)
class StarSurface:
    """A star-shaped surface about the origin; lengths in any one unit.

    Parameters
    ----------
    axes : tuple of float
        Half-axes of the ellipsoid, before it is turned.
    turned : (3, 3) ndarray
        Rotation of the ellipsoid.
    offset : tuple of float
        Centre of the ellipsoid (Z, Y, X); the origin lies inside.
    dent : tuple of float
        Direction (Z, Y, X) of a dent, its depth as a share of the radius and its width in radians.
    waves : tuple of tuples
        Lobes and roughness: amplitude (share of the radius), wave vector (Z, Y, X), phase.
    """

    axes: tuple[float, float, float]
    turned: np.ndarray = field(default_factory=lambda: np.eye(3), compare=False)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    dent: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0)
    waves: tuple[tuple[float, ...], ...] = ()

    @cached_property
    def packed(self) -> np.ndarray:
        """The surface as one float64 array, for the compiled loops."""
        axes = np.asarray(self.axes, np.float64)
        towards = np.asarray(self.dent[:3], np.float64)
        return np.concatenate(
            [
                (self.turned / axes).ravel(),
                (np.asarray(self.offset, np.float64) @ self.turned) / axes,
                towards / np.linalg.norm(towards),
                self.dent[3:5],
                np.asarray(self.waves, np.float64).ravel(),
            ]
        )

    def radius(self, directions: np.ndarray) -> np.ndarray:
        """Distance (N,) from the origin to the surface along unit vectors (N, 3)."""
        return _radii(self.packed, np.ascontiguousarray(directions, np.float64))

    def points(self, count: int) -> np.ndarray:
        """(count, 3) points on the surface, along evenly spread directions."""
        directions = sphere_directions(count)
        return directions * self.radius(directions)[:, None]

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """A radius below the smallest and one above the largest of the surface."""
        radii = self.radius(sphere_directions(_PROBES))
        return float(radii.min()) * (1 - _SLACK), float(radii.max()) * (1 + _SLACK)

    def distance(self, points: np.ndarray, samples: int = 8_000) -> np.ndarray:
        """Distance (N,) of points (N, 3) to the surface.

        The nearest of `samples` points on the surface is moved along the surface until it is the foot of
        the perpendicular.
        """
        on_surface = self.points(samples)
        nearest = cKDTree(on_surface).query(points)[1]
        return _refine(self.packed, np.ascontiguousarray(points, np.float64), on_surface[nearest])


@njit(nogil=True, cache=True)
def radius_along(s, z, y, x):
    """Radius of the packed surface `s` along the unit vector (z, y, x)."""
    a = b = c = 0.0
    for k in range(3):
        d = z * s[k] + y * s[3 + k] + x * s[6 + k]
        o = s[9 + k]
        a += d * d
        b += d * o
        c += o * o
    radius = (b + np.sqrt(b * b - a * (c - 1.0))) / a
    if s[15] != 0.0:
        cosine = min(max(z * s[12] + y * s[13] + x * s[14], -1.0), 1.0)
        angle = np.arccos(cosine) / s[16]
        radius *= 1.0 - s[15] * np.exp(-angle * angle)
    factor = 1.0
    for k in range(_WAVES, len(s), 5):
        factor += s[k] * np.sin(z * s[k + 1] + y * s[k + 2] + x * s[k + 3] + s[k + 4])
    return radius * factor


@njit(nogil=True, cache=True)
def _radii(s, directions):
    out = np.empty(len(directions))
    for i in range(len(directions)):
        out[i] = radius_along(s, directions[i, 0], directions[i, 1], directions[i, 2])
    return out


@njit(nogil=True, cache=True)
def _height(s, z, y, x):
    """Signed radial height over the surface (0 on it)."""
    r = np.sqrt(z * z + y * y + x * x)
    return r - radius_along(s, z / r, y / r, x / r)


@njit(nogil=True, cache=True)
def _refine(s, points, feet):
    out = np.empty(len(points))
    foot, normal, away, moved = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for i in range(len(points)):
        foot[:] = feet[i]
        away[:] = points[i] - foot
        best = np.sqrt(np.sum(away * away))
        step = 1.0
        for _ in range(24):
            h = 1e-4 * np.sqrt(np.sum(foot * foot))
            normal[0] = _height(s, foot[0] + h, foot[1], foot[2]) - _height(s, foot[0] - h, foot[1], foot[2])
            normal[1] = _height(s, foot[0], foot[1] + h, foot[2]) - _height(s, foot[0], foot[1] - h, foot[2])
            normal[2] = _height(s, foot[0], foot[1], foot[2] + h) - _height(s, foot[0], foot[1], foot[2] - h)
            normal /= np.sqrt(np.sum(normal * normal))
            moved[:] = foot + step * (away - np.sum(away * normal) * normal)
            r = np.sqrt(np.sum(moved * moved))
            moved *= radius_along(s, moved[0] / r, moved[1] / r, moved[2] / r) / r
            now = points[i] - moved
            distance = np.sqrt(np.sum(now * now))
            if distance < best:
                gained = best - distance
                best = distance
                foot[:] = moved
                away[:] = now
                if gained < 1e-9 * best:
                    break
            else:
                step *= 0.5
        out[i] = best
    return out


@njit(nogil=True, cache=True)
def classify(ne, pm, ne_bounds, pm_bounds, centre, origin, step, labels, t):
    """Label voxels 2 (nucleus), 1 (cytoplasm), 0, and give the cytoplasm its position along the ray.

    Parameters
    ----------
    ne, pm : (K,) float64 ndarray
        Packed surfaces about `centre`.
    ne_bounds, pm_bounds : tuple of float
        Radii between which the surface is looked up.
    centre, origin, step : (3,) float64 ndarray
        Of the surfaces, of the first voxel of `labels`, from voxel to voxel.
    labels : (Z, Y, X) uint8 ndarray
        Written.
    t : (Z, Y, X) or (0, 0, 0) float32 ndarray
        Written where it is not empty: position in [0, 1], NaN outside the cytoplasm.
    """
    wanted = t.size > 0
    for i in range(labels.shape[0]):
        z = origin[0] + i * step[0] - centre[0]
        for j in range(labels.shape[1]):
            y = origin[1] + j * step[1] - centre[1]
            for k in range(labels.shape[2]):
                x = origin[2] + k * step[2] - centre[2]
                r = np.sqrt(z * z + y * y + x * x)
                label, position = 0, np.nan
                if r < ne_bounds[0]:
                    label = 2
                elif r <= pm_bounds[1]:
                    away = max(r, 1e-12)
                    inner = -1.0
                    if r <= ne_bounds[1] or wanted:
                        inner = radius_along(ne, z / away, y / away, x / away)
                    if r <= inner:
                        label = 2
                    elif r < pm_bounds[0] and not wanted:
                        label = 1
                    else:
                        outer = radius_along(pm, z / away, y / away, x / away)
                        if r <= outer:
                            label = 1
                            position = (r - inner) / (outer - inner)
                labels[i, j, k] = label
                if wanted:
                    t[i, j, k] = position


@njit(nogil=True, cache=True)
def paint(ne, pm, limit, centre, origin, step, number, cells, nuclei, nearest, t):
    """Paint one of many cells; where cells overlap, a voxel goes to the one that it lies deeper in.

    As :func:`classify`, into label images; `nearest` (float32) holds the share of the radius at which a
    voxel lies in the cell that has it, infinite where there is none, and `limit` is the largest radius.
    """
    wanted = t.size > 0
    for i in range(cells.shape[0]):
        z = origin[0] + i * step[0] - centre[0]
        for j in range(cells.shape[1]):
            y = origin[1] + j * step[1] - centre[1]
            for k in range(cells.shape[2]):
                x = origin[2] + k * step[2] - centre[2]
                r = np.sqrt(z * z + y * y + x * x)
                if r > limit:
                    continue
                away = max(r, 1e-12)
                outer = radius_along(pm, z / away, y / away, x / away)
                share = np.float32(r / outer)
                if r > outer or share >= nearest[i, j, k]:
                    continue
                inner = radius_along(ne, z / away, y / away, x / away)
                nearest[i, j, k] = share
                cells[i, j, k] = number
                nuclei[i, j, k] = number if r <= inner else 0
                if wanted:
                    t[i, j, k] = (r - inner) / (outer - inner) if r > inner else np.nan
