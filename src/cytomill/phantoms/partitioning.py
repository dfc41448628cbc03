"""Single cells with a nucleus, and the radial position of every cytoplasm voxel known in closed form.

Each cell is two star-shaped surfaces about one centre: the nuclear envelope (NE) and the plasma membrane
(PM).  Voxels are drawn region by region, so that a cell of any size can be streamed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cytomill.kernels.blocks import Region
from cytomill.phantoms.granules import Granules, place_granules
from cytomill.phantoms.star_surface import StarSurface, classify, sphere_directions, turn

CYTOPLASM_LABEL, NUCLEUS_LABEL = 1, 2
#: Background voxels that are kept free around a cell.
MARGIN = 3


@dataclass(frozen=True)
class CellRecipe:
    """Two surfaces in a box; lengths in units of `unit_nm`, positions from the first voxel's centre."""

    unit_nm: float
    voxel_size_nm: tuple[float, float, float]
    box: tuple[int, int, int]
    centre: tuple[float, float, float]
    ne: StarSurface
    pm: StarSurface
    granule_radius: float
    granule_pitch: float


def _rough(amplitude: float, number: float, count: int, seed: int) -> tuple[tuple[float, ...], ...]:
    """Plane waves of one wave number in random directions, together of this largest amplitude."""
    rng = np.random.default_rng([23, seed])
    ways = rng.standard_normal((count, 3))
    ways *= number / np.linalg.norm(ways, axis=1, keepdims=True)
    phases = rng.uniform(0, 2 * np.pi, count)
    return tuple((amplitude / count, *map(float, way), float(phase)) for way, phase in zip(ways, phases))


def _dent(seed: int) -> CellRecipe:
    ne = StarSurface((15.0, 26.0, 20.0), turn(0, 25) @ turn(2, 15))
    pm = StarSurface(
        (52.0, 72.0, 60.0), turn(0, -15), offset=(7.0, 12.0, 6.0), dent=(0.35, 0.80, 0.45, 0.68, 0.40)
    )
    return CellRecipe(108.0, (108.0,) * 3, (120, 160, 136), (52.4, 66.7, 60.2), ne, pm, 2.0, 7.5)


def _spheres(seed: int) -> CellRecipe:
    surfaces = StarSurface((20.0,) * 3), StarSurface((58.0,) * 3)
    return CellRecipe(108.0, (108.0,) * 3, (128, 128, 128), (63.3, 64.1, 62.8), *surfaces, 2.0, 7.5)


def _hela(seed: int) -> CellRecipe:
    # 15 x 20 x 20 um, sampled as an SBF-SEM stack; the shape differs a little from seed to seed.
    lobes = _rough(0.50, 3.2, 3, seed) + _rough(0.03, 14.0, 6, seed + 1)
    folds = _rough(0.10, 5.0, 4, seed + 2) + _rough(0.05, 28.0, 8, seed + 3)
    ne = StarSurface((310.0, 420.0, 460.0), turn(0, 20), waves=lobes)
    pm = StarSurface((590.0, 800.0, 850.0), turn(0, 10), offset=(10.0, 60.0, -40.0), waves=folds)
    return CellRecipe(
        10.0, (50.0, 10.0, 10.0), (1496, 2000, 2000), (748.3, 960.4, 1010.7), ne, pm, 14.0, 50.0
    )


KINDS = {"spheres": _spheres, "dent": _dent, "hela": _hela}


class CellPhantom:
    """A cell with truth.

    Parameters
    ----------
    kind : {"spheres", "dent", "hela"}
        Concentric spheres; turned, off-centre ellipsoids with a dent that leaves 5 voxels of cytoplasm; a
        flat cell with a lobed nucleus and rough membranes.
    voxel_size_nm : sequence of float, optional
        (Z, Y, X) in nm; by default the kind's own. The cell's size in nm does not depend on it.
    scale : float
        Enlarges the cell (and so its voxels, at the same voxel size).
    seed : int
        Shape of the rough kinds and places of the granules.

    Attributes
    ----------
    shape : tuple of int
        Voxels (Z, Y, X), with at least three background voxels on every side of the cell.
    voxel_size_nm : tuple of float
    origin_nm : (3,) float64 ndarray
        Position of the first voxel's centre; positions of all sizes and samplings of one kind agree.
    centre : (3,) float64 ndarray
        Of the surfaces, as voxel indices.
    thinnest_nm : float
        Smallest distance along a ray from NE to PM.

    Raises
    ------
    ValueError
        If there is no such kind, or a size is not positive.
    """

    def __init__(
        self,
        kind: str = "dent",
        voxel_size_nm: Sequence[float] | None = None,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"there is no cell phantom {kind!r}: choose one of {', '.join(KINDS)}")
        self.kind, self.scale, self.seed = kind, float(scale), int(seed)
        self.recipe = KINDS[kind](seed)
        size = self.recipe.voxel_size_nm if voxel_size_nm is None else tuple(map(float, voxel_size_nm))
        if len(size) != 3 or not all(np.isfinite(size)) or min(size) <= 0 or not 0 < scale < np.inf:
            raise ValueError(
                f"a cell phantom needs three positive voxel sizes (Z, Y, X) in nm and a positive scale, "
                f"found {size} and {scale}"
            )
        self.voxel_size_nm = size
        self._unit_nm = self.recipe.unit_nm * self.scale
        #: From voxel to voxel, in the recipe's units.
        self._step = np.asarray(size) / self._unit_nm
        points = self.recipe.pm.points(20_000) + self.recipe.centre
        below = np.ceil(MARGIN - points.min(0) / self._step).astype(int)
        ends = np.array([round((n - 1) / s) for n, s in zip(self.recipe.box, self._step)])
        above = np.ceil(points.max(0) / self._step + MARGIN).astype(int)
        first = -np.maximum(below, 0)
        self.shape = tuple(int(n) for n in np.maximum(ends, above) - first + 1)
        self._origin = first * self._step
        self.origin_nm = self._origin * self._unit_nm
        self.centre = (self.recipe.centre - self._origin) / self._step

    @cached_property
    def thinnest_nm(self) -> float:
        """Smallest distance along a ray from the NE to the PM."""
        directions = sphere_directions(50_000)
        between = self.recipe.pm.radius(directions) - self.recipe.ne.radius(directions)
        return float(between.min()) * self._unit_nm

    def _draw(self, region: Region | None, wanted: bool) -> tuple[np.ndarray, np.ndarray]:
        region = tuple(region or ())
        region += tuple((0, n) for n in self.shape[len(region) :])
        extent = tuple(stop - start for start, stop in region)
        labels = np.empty(extent, np.uint8)
        t = np.empty(extent if wanted else (0, 0, 0), np.float32)
        origin = self._origin + self._step * [start for start, _ in region]
        ne, pm = self.recipe.ne, self.recipe.pm
        centre = np.asarray(self.recipe.centre)
        classify(ne.packed, pm.packed, ne.bounds, pm.bounds, centre, origin, self._step, labels, t)
        return labels, t

    def labels(self, region: Region | None = None) -> np.ndarray:
        """Label volume of a region.

        Parameters
        ----------
        region : tuple of (int, int), optional
            Half-open ranges (Z, Y, X); axes left out are whole.

        Returns
        -------
        (Z, Y, X) uint8 ndarray
            1 cytoplasm, 2 nucleus, 0 outside.
        """
        return self._draw(region, False)[0]

    def ray_position(self, region: Region | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Label volume of a region (as :meth:`labels`) and the position along the rays.

        Returns
        -------
        labels : (Z, Y, X) uint8 ndarray
        t : (Z, Y, X) float32 ndarray
            (r - r_NE) / (r_PM - r_NE) in [0, 1]; NaN outside the cytoplasm.
        """
        return self._draw(region, True)

    @cached_property
    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        return self.ray_position()

    @cached_property
    def nucleus(self) -> np.ndarray:
        """(Z, Y, X) bool ndarray."""
        return self._whole[0] == NUCLEUS_LABEL

    @cached_property
    def cell(self) -> np.ndarray:
        """(Z, Y, X) bool ndarray, the nucleus included."""
        return self._whole[0] > 0

    @property
    def cytoplasm(self) -> np.ndarray:
        """(Z, Y, X) bool ndarray."""
        return self._whole[0] == CYTOPLASM_LABEL

    @property
    def t_ray(self) -> np.ndarray:
        """Position along the ray from the centre, (Z, Y, X) float32, NaN outside the cytoplasm."""
        return self._whole[1]

    @cached_property
    def t_edt(self) -> np.ndarray:
        """d_NE / (d_NE + d_PM) of the distances to the surfaces, (Z, Y, X) float32, NaN outside."""
        if self.kind == "spheres":
            return self.t_ray
        out = np.full(self.shape, np.nan, np.float32)
        where = np.nonzero(self.cytoplasm)
        points = np.stack(where, -1) * self._step + (self._origin - self.recipe.centre)
        to_ne, to_pm = self.recipe.ne.distance(points), self.recipe.pm.distance(points)
        out[where] = to_ne / (to_ne + to_pm)
        return out

    def granules(self, step_t: float = 0.5, enrichment: float = 3.0, fill: float = 0.5) -> Granules:
        """Spherical organelles in the cytoplasm, denser beyond a radial position.

        Parameters
        ----------
        step_t : float
            Position along the ray at which the density steps.
        enrichment : float
            Density of granules beyond `step_t` over that before it.
        fill : float
            Share of the places of the denser part that hold a granule, 0 to 1.

        Returns
        -------
        Granules
            Wholly inside the cytoplasm and apart from one another.
        """
        recipe = self.recipe
        lattice = (recipe.granule_radius, recipe.granule_pitch)
        centres, t = place_granules(recipe.ne, recipe.pm, *lattice, step_t, enrichment, fill, self.seed)
        placed = (centres + recipe.centre - self._origin) * self._unit_nm
        return Granules(placed, recipe.granule_radius * self._unit_nm, t, self.voxel_size_nm)


def make_cell_phantom(
    kind: str = "dent",
    voxel_size_nm: Sequence[float] | None = None,
    scale: float = 1.0,
    seed: int = 0,
) -> CellPhantom:
    """Return a cell with truth; parameters as for :class:`CellPhantom`."""
    return CellPhantom(kind, voxel_size_nm, scale, seed)
