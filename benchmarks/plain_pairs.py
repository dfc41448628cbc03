"""The published NE-PM pair method written down plainly in NumPy and SciPy.

Whole arrays, one tree a shell surface, a loop over voxels: what the method's description says, as a
reader would write it first (without smoothing twice, caching or batching).  The benchmark measures the
package against it, and a test checks that it says the same as the published partitions.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

#: Most samples of NE and PM, and the lengths of the pairs that are kept, voxels.
NE_SAMPLES, PM_SAMPLES = 50_000, 100_000
SHORTEST, LONGEST = 15.0, 200.0
#: A voxel goes to the nearer of its two shell surfaces beyond this share of distance.
NEARER = 0.6
#: With this many pairs or fewer the steps along a pair follow its length.
FEW_PAIRS = 1000


def smooth(mask: np.ndarray, sigma: float = 1.0, closings: int = 2) -> np.ndarray:
    """Gaussian, half level, closing."""
    smoothed = ndimage.gaussian_filter(mask.astype(float), sigma) > 0.5
    return ndimage.binary_closing(smoothed, iterations=closings)


def edges(nucleus: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (N, 3) of the outermost layer of the nucleus, and of the two outermost of the cell."""
    found = []
    for mask, layers in ((nucleus, 1), (cell, 2)):
        filled = ndimage.binary_fill_holes(smooth(mask))
        found.append(np.argwhere(filled & ~ndimage.binary_erosion(filled, iterations=layers)))
    return found[0], found[1]


def _thinned(points: np.ndarray, most: int) -> np.ndarray:
    return points[:: len(points) // most] if len(points) > most else points


def _directions(points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    away = points - centre
    return away / (np.linalg.norm(away, axis=1, keepdims=True) + 1e-8)


def pairs(ne: np.ndarray, pm: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """For every NE sample the PM sample in the most similar direction: (K, 6) NE and PM voxels."""
    ne = _thinned(ne, NE_SAMPLES)
    pm = _thinned(pm, min(8 * len(ne), PM_SAMPLES))
    partner = pm[cKDTree(_directions(pm, centre)).query(_directions(ne, centre))[1]]
    length = np.linalg.norm(ne - partner, axis=1)
    return np.hstack([ne, partner])[(length >= SHORTEST) & (length <= LONGEST)]


def shell_surfaces(pair: np.ndarray, cell: np.ndarray, intervals: int) -> list[np.ndarray]:
    """Points of each shell surface: equal steps along every pair, those outside the cell left out."""
    inner, outer = pair[:, :3].astype(float), pair[:, 3:].astype(float)
    surfaces: list[list[np.ndarray]] = [[] for _ in range(intervals + 1)]
    if len(pair) > FEW_PAIRS:
        for step in range(intervals + 1):
            surfaces[step] = list(inner + (outer - inner) * step / intervals)
    else:
        length = np.linalg.norm(outer - inner, axis=1)
        middle = np.median(length)
        for start, end, own in zip(inner, outer, length):
            steps = intervals
            if own < 0.5 * middle:
                steps = max(3, intervals // 2)
            elif own > 2 * middle:
                steps = intervals + 2
            for step in range(steps + 1):
                surface = min(int(step / steps * intervals), intervals)
                surfaces[surface].append(start + (end - start) * step / steps)
    result = []
    for surface in surfaces:
        points = np.array(surface).reshape(-1, 3)
        voxel = points.astype(int)
        result.append(np.unique(points[cell[tuple(voxel.T)]], axis=0))
    return result


def partition(nucleus: np.ndarray, cell: np.ndarray, shells: int = 8) -> np.ndarray:
    """Partition the cytoplasm by its distances to the shell surfaces.

    Parameters
    ----------
    nucleus, cell : (Z, Y, X) bool ndarray
    shells : int
        Shell surfaces, and so partitions.

    Returns
    -------
    (Z, Y, X) int64 ndarray
        1 to `shells` in the cytoplasm, 0 elsewhere.
    """
    ne, pm = edges(nucleus, cell)
    surfaces = shell_surfaces(pairs(ne, pm, ne.mean(axis=0)), cell, shells - 1)
    region = ndimage.binary_fill_holes(cell) & ~ndimage.binary_fill_holes(nucleus)
    voxels = np.argwhere(region)
    present = [number for number, points in enumerate(surfaces, start=1) if len(points)]
    distances = np.stack([cKDTree(surfaces[n - 1]).query(voxels)[0] for n in present], axis=1)
    result = np.zeros(cell.shape, int)
    for voxel, row in zip(voxels, distances):
        first, second = np.argsort(row, kind="stable")[:2]
        nearest, next_nearest = present[first], present[second]
        if nearest == 1:
            number = 1
        elif nearest >= len(present):
            number = max(present)
        else:
            share = row[second] / (row[first] + row[second])
            number = nearest if share > NEARER else min(nearest, next_nearest)
        result[tuple(voxel)] = number
    for number in range(1, shells + 1):
        closed = ndimage.binary_closing(result == number) & region
        result[closed] = number
    return result
