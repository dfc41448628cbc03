"""A synthetic SBF-SEM stack with clusters of nanoparticles, and the truth.

The specimen is a tissue of convex cells (a Voronoi partition of jittered seeds) with plasma
membranes, extracellular resin, nuclei with a nuclear envelope, mitochondria-like dark bodies and a
correlated cytoplasmic texture.  Vesicles in the cytoplasm are packed with small discs that are
brighter than everything else; a few discs lie alone.  The detector adds a slight blur and noise
whose variance grows with the signal.

Every slice is drawn from its own seed, so that a stack of any size can be streamed, in any order
and by any number of ranks, with the same voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

#: Grey levels of the tissue (8-bit scale) before blur and noise.
RESIN, CYTOPLASM, NUCLEUS, MEMBRANE, MITOCHONDRION = 138.0, 116.0, 127.0, 88.0, 100.0
#: Slice thickness over pixel size (50 nm over 10 nm).
Z_STEP = 5.0
#: Mean spacing of the cells and half-width of a membrane, pixels.
CELL_SPACING, MEMBRANE_WIDTH = 110.0, 1.6
#: A 16-bit stack keeps the 8-bit contrast on this gain and offset, as a 12-bit detector would.
GAIN_16, OFFSET_16 = 23.0, 700.0
#: Largest fraction of voxels that particles may take.
MAX_LOAD = 0.1


@dataclass(frozen=True)
class NanoparticlePhantom:
    """Recipe of a nanoparticle phantom; slices are drawn on demand.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X) voxels.
    seed : int
        Seed of everything random.
    load : float
        Fraction of voxels that are particle, 0 to 0.1 (expected over the stack; blank slices and
        slices in `without_particles` carry none and the others are not made richer for it).
    dtype : {"uint8", "uint16"}
        Type of the voxels; uint16 keeps the contrast with `GAIN_16` and `OFFSET_16`.
    polarity : {"bright", "dark"}
        Whether particles are brighter or darker than the tissue; "dark" inverts the contrast.
    drift : float
        Largest brightness offset of a slice, 8-bit grey levels; smooth along Z.
    blank_slices : tuple of int
        Slices that were not acquired: all zero, no particles in the truth.
    without_particles : tuple of int
        Slices that hold tissue but no particles.
    noise : float
        Standard deviation of the detector noise at the tissue's mean, 8-bit grey levels.

    Raises
    ------
    ValueError
        If the shape, the load, the dtype or the polarity is not one of the above.
    """

    shape: tuple[int, int, int]
    seed: int = 0
    load: float = 0.01
    dtype: str = "uint8"
    polarity: str = "bright"
    drift: float = 0.0
    blank_slices: tuple[int, ...] = ()
    without_particles: tuple[int, ...] = ()
    noise: float = 7.0
    _empty: frozenset = field(init=False, repr=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"a phantom needs a shape of three positive numbers (Z, Y, X), not {self.shape}")
        if not 0.0 <= self.load <= MAX_LOAD:
            raise ValueError(f"load is the share of particle voxels, 0 to {MAX_LOAD}, not {self.load}")
        if np.dtype(self.dtype) not in (np.dtype("uint8"), np.dtype("uint16")):
            raise ValueError(f"a phantom is uint8 or uint16, not {self.dtype}")
        if self.polarity not in ("bright", "dark"):
            raise ValueError(f"polarity is bright or dark, not {self.polarity!r}")
        object.__setattr__(self, "_empty", frozenset(self.blank_slices) | frozenset(self.without_particles))

    @cached_property
    def _cells(self) -> np.ndarray:
        """(n, 3) cell centres in pixel units, jittered on a lattice wider than the stack."""
        rng = np.random.default_rng([self.seed, 1])
        extent = np.array([self.shape[0] * Z_STEP, self.shape[1], self.shape[2]])
        counts = np.ceil(extent / CELL_SPACING).astype(int) + 2
        axes = (np.arange(n) - 0.5 for n in counts)
        lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        return (lattice + rng.uniform(-0.38, 0.38, lattice.shape)) * CELL_SPACING

    @cached_property
    def _vesicles(self) -> np.ndarray:
        """(n, 5) vesicles: z, y, x of the centre, radius (pixels), density of discs."""
        z, y, x = self.shape
        rng = np.random.default_rng([self.seed, 2])
        # Vesicles overlap at random, so the cover wanted is reached by a little more of them.
        wanted = -np.log1p(-1.6 * self.load) / 1.6 * z * y * x
        # A tiny stack has no room for large vesicles; a low load is not put into one of them.
        largest = max(3.0, min(22.0, 0.2 * min(y, x), (0.05 * max(wanted, 1.0)) ** (1 / 3) * 1.7))
        rows = []
        while wanted > 0:
            radius = float(np.clip(rng.lognormal(2.1, 0.55), 3.0, largest))
            density = rng.uniform(0.7, 2.2)
            depth = max(radius / Z_STEP, 0.5)
            volume = 4 / 3 * np.pi * radius**2 * depth * (1 - np.exp(-density))
            if volume > wanted:
                radius *= max((wanted / volume) ** (1 / 3), 0.3)
            centre = np.array([z * rng.beta(1.0, 1.5) - 0.5, y * rng.random(), x * rng.random()])
            centre = self._into_cytoplasm(centre, rng)
            rows.append((*centre, radius, density))
            wanted -= volume
        return np.array(rows).reshape(-1, 5)

    def _into_cytoplasm(self, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Move a centre out of the nucleus of its cell, along its own direction in the plane."""
        scaled = centre * (Z_STEP, 1.0, 1.0)
        distance, index = self._tree.query(scaled)
        if distance < 0.33 * CELL_SPACING:
            away = scaled - self._cells[index]
            scaled = self._cells[index] + away * (rng.uniform(0.34, 0.5) * CELL_SPACING / max(distance, 1e-6))
        moved = scaled / (Z_STEP, 1.0, 1.0)
        inside = np.all((moved >= -0.5) & (moved < np.array(self.shape) - 0.5))
        return moved if inside else centre

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self._cells)

    def slice_offset(self, z: int) -> float:
        """Brightness offset of slice `z` in 8-bit grey levels (two slow waves of random phase)."""
        if not self.drift:
            return 0.0
        phase = np.random.default_rng([self.seed, 3]).uniform(0, 2 * np.pi, 2)
        turns = z / max(self.shape[0], 8)
        slow, quick = np.sin(2 * np.pi * np.array([1.3, 4.1]) * turns + phase)
        return float(self.drift * (0.7 * slow + 0.3 * quick))

    def _tissue(self, z: int, rng: np.random.Generator) -> np.ndarray:
        """(Y, X) float64 grey levels of the tissue of slice `z`, without detector."""
        _, y, x = self.shape
        step = 2
        axes = [z * Z_STEP], np.arange(0, y + step, step), np.arange(0, x + step, step)
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)[0]
        near, owner = self._tree.query(grid.reshape(-1, 3), k=2)
        near = near.reshape(*grid.shape[:2], 2)
        to_wall = 0.5 * (near[..., 1] - near[..., 0])
        # Each cell has its own nucleus size, and a little of its own grey.
        owner = owner.reshape(near.shape)[..., 0]
        own = np.random.default_rng([self.seed, 4]).random((len(self._cells), 2))
        to_nucleus = near[..., 0] - (0.2 + 0.12 * own[owner, 0]) * CELL_SPACING
        grey = np.where(to_nucleus < 0, NUCLEUS, CYTOPLASM) + 5.0 * (own[owner, 1] - 0.5)

        def full(coarse: np.ndarray, order: int = 1) -> np.ndarray:
            return ndimage.zoom(coarse, step, order=order, grid_mode=True, mode="nearest")[:y, :x]

        wall, nucleus, image = full(to_wall), full(to_nucleus), full(grey)
        resin = 1 / (1 + np.exp((wall - 3.5) * 2.0))
        image = image + (RESIN - image) * resin
        image += (MEMBRANE - CYTOPLASM) * np.exp(-(((wall - 5.5) / MEMBRANE_WIDTH) ** 2))
        image += 0.5 * (MEMBRANE - CYTOPLASM) * np.exp(-((nucleus / MEMBRANE_WIDTH) ** 2))
        texture = ndimage.gaussian_filter(rng.standard_normal((y, x)), 1.8)
        image += 4.5 * texture / max(float(texture.std()), 1e-9) * (wall > 5.5)
        bodies = ndimage.gaussian_filter(rng.standard_normal((y, x)), (5.0, 8.0))
        bodies /= max(float(bodies.std()), 1e-9)
        body = (bodies > 1.9) & (nucleus > 4) & (wall > 9)
        image[body] += MITOCHONDRION - CYTOPLASM
        return image

    def _particles(self, z: int) -> np.ndarray:
        """(Y, X) float64 brightness that the particles of slice `z` add; positive on the truth."""
        _, y, x = self.shape
        layer = np.zeros((y, x))
        if z in self._empty or not self.load:
            return layer
        table = self._vesicles
        depth = np.maximum(table[:, 3] / Z_STEP, 0.5)
        for index in np.flatnonzero(np.abs(table[:, 0] - z) < depth):
            z0, y0, x0, radius, density = table[index]
            rng = np.random.default_rng([self.seed, 5, int(index), z])
            section = radius * np.sqrt(1 - ((z - z0) / depth[index]) ** 2)
            count = max(1, int(round(density * section**2 / 5.8)))
            rho, angle = section * np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
            sizes, bright = rng.uniform(1.4, 3.2, count), np.clip(rng.normal(88.0, 14.0, count), 55.0, 125.0)
            for r, a, size, value in zip(rho, angle, sizes, bright):
                _stamp(layer, y0 + r * np.sin(a), x0 + r * np.cos(a), size, value)
        return layer

    def slice(self, z: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw slice `z`.

        Returns
        -------
        image : (Y, X) ndarray of `dtype`
        truth : (Y, X) bool ndarray
            True where a voxel's centre lies in a particle.
        """
        rng = np.random.default_rng([self.seed, 6, z])
        if z in frozenset(self.blank_slices):
            blank = np.zeros(self.shape[1:], self.dtype)
            return blank, np.zeros(self.shape[1:], bool)
        tissue = self._tissue(z, rng)
        layer = self._particles(z)
        image = ndimage.gaussian_filter(tissue + layer, 0.65) + self.slice_offset(z)
        image += self.noise * np.sqrt(np.maximum(image, 1.0) / CYTOPLASM) * rng.standard_normal(image.shape)
        top = 255.0
        if self.polarity == "dark":
            image = 255.0 - image
        if np.dtype(self.dtype) == np.uint16:
            image, top = OFFSET_16 + GAIN_16 * image, 65535.0
        return np.clip(np.rint(image), 0, top).astype(self.dtype), layer > 0

    def __iter__(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        for z in range(self.shape[0]):
            yield (z, *self.slice(z))


def _stamp(layer: np.ndarray, y: float, x: float, radius: float, value: float) -> None:
    """Lay a disc on `layer` (the brighter of two discs shows)."""
    y0, y1 = max(int(np.floor(y - radius)), 0), min(int(np.ceil(y + radius)) + 1, layer.shape[0])
    x0, x1 = max(int(np.floor(x - radius)), 0), min(int(np.ceil(x + radius)) + 1, layer.shape[1])
    if y0 >= y1 or x0 >= x1:
        return
    inside = (np.arange(y0, y1)[:, None] - y) ** 2 + (np.arange(x0, x1)[None, :] - x) ** 2 <= radius**2
    part = layer[y0:y1, x0:x1]
    np.maximum(part, inside * value, out=part)


def make_slices(
    shape: tuple[int, int, int], seed: int = 0, load: float = 0.01, **options
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Stream ``(z, image, truth)`` of a phantom; options as for :class:`NanoparticlePhantom`."""
    return iter(NanoparticlePhantom(tuple(shape), seed, load, **options))


def make_volume(
    shape: tuple[int, int, int], seed: int = 0, load: float = 0.01, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole phantom in memory.

    Returns
    -------
    volume : (Z, Y, X) uint8 or uint16 ndarray
    truth : (Z, Y, X) bool ndarray
    """
    phantom = NanoparticlePhantom(tuple(shape), seed, load, **options)
    volume, truth = np.empty(phantom.shape, phantom.dtype), np.empty(phantom.shape, bool)
    for z, image, mask in phantom:
        volume[z], truth[z] = image, mask
    return volume, truth
