"""A cell to draw: codes of shells and nucleus, three planes of them, and a coarse volume."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from cytomill.kernels.cell_codes import NUCLEUS_ID, UNASSIGNED_ID

#: Voxels along the longest side of a coarse volume: enough for a picture, little enough for a report.
COARSE_VOXELS = 96
_MARGIN = 0.04
_PLANES = ("x–y", "x–z", "y–z")


@dataclass
class PlaneSlice:
    """One plane through a cell.

    Parameters
    ----------
    axis : int
        Axis that the plane is normal to: 0 for x–y, 1 for x–z, 2 for y–z.
    index : int
        Where the plane lies on that axis, voxels of the image volume.
    codes : (A, B) uint8 ndarray
        0 outside the cell, 1..n shells, `NUCLEUS_ID`, `UNASSIGNED_ID`; the two other axes in (Z, Y, X) order.
    image : (A, B) ndarray or None
        Intensities, any real dtype.
    organelles : dict of str to (A, B) bool ndarray
        Masks to outline.

    Raises
    ------
    ValueError
        When the codes are not two-dimensional or another array has another shape.
    """

    axis: int
    index: int
    codes: np.ndarray
    image: np.ndarray | None = None
    organelles: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.codes.ndim != 2:
            raise ValueError(f"{self.name} plane: codes have shape {self.codes.shape}, expected two axes")
        others = {"image": self.image, **self.organelles}
        for name, array in others.items():
            if array is not None and array.shape != self.codes.shape:
                raise ValueError(
                    f"{self.name} plane: {name} has shape {array.shape}, "
                    f"expected {self.codes.shape} like the codes"
                )

    @property
    def name(self) -> str:
        """Axes in the plane."""
        return _PLANES[self.axis]


@dataclass
class ExampleCell:
    """One cell to look at.

    Parameters
    ----------
    cell : int
        Its label.
    voxel_size_nm : tuple of float
        (Z, Y, X) of the planes, nm.
    planes : list of PlaneSlice
        Three planes through the nucleus's centre; of a 2-D image only x–y.
    coarse : (Z, Y, X) uint8 ndarray or None
        Codes of the whole cell on a coarse grid, for the 3-D picture; None for a 2-D image.
    coarse_voxel_size_nm : tuple of float
        (Z, Y, X) of the coarse grid, nm.
    """

    cell: int
    voxel_size_nm: tuple[float, float, float]
    planes: list[PlaneSlice] = field(default_factory=list)
    coarse: np.ndarray | None = None
    coarse_voxel_size_nm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @classmethod
    def of(
        cls,
        cell: int,
        codes: np.ndarray,
        voxel_size_nm: tuple[float, float, float],
        image: np.ndarray | None = None,
        organelles: dict[str, np.ndarray] | None = None,
        start: tuple[int, int, int] = (0, 0, 0),
    ) -> ExampleCell:
        """Cut the planes and thin out the volume of a cell that lies in memory.

        Parameters
        ----------
        cell : int
            Its label.
        codes : (Z, Y, X) uint8 ndarray
            From `encode`.
        voxel_size_nm : tuple of float
            (Z, Y, X), nm.
        image : (Z, Y, X) ndarray or None
            Intensities of the crop.
        organelles : dict of str to (Z, Y, X) ndarray or None
            Masks or labels of the crop; anything that is not 0 is outlined.
        start : tuple of int
            Where the crop begins in the image volume, voxels.

        Raises
        ------
        ValueError
            When no voxel of `codes` belongs to a cell.
        """
        box = _bounding_box(codes)
        centre = plane_indices(codes)
        planes = []
        for axis in range(3) if codes.shape[0] > 1 else (0,):
            cut = tuple(centre[axis] if a == axis else box[a] for a in range(3))
            planes.append(
                PlaneSlice(
                    axis,
                    start[axis] + centre[axis],
                    codes[cut],
                    None if image is None else image[cut],
                    {name: mask[cut] != 0 for name, mask in (organelles or {}).items()},
                )
            )
        if codes.shape[0] == 1:
            return cls(cell, voxel_size_nm, planes)
        inside = codes[box]
        steps = coarse_steps(inside.shape, voxel_size_nm)
        coarse = np.ascontiguousarray(inside[tuple(slice(s // 2, None, s) for s in steps)])
        size = tuple(float(v * s) for v, s in zip(voxel_size_nm, steps))
        return cls(cell, voxel_size_nm, planes, coarse, size)


def encode(shells: np.ndarray, nucleus: np.ndarray, cell: np.ndarray | None = None) -> np.ndarray:
    """Shells and nucleus in one array, for a whole crop, one plane of it or every n-th voxel alike.

    Parameters
    ----------
    shells : integer ndarray
        0 outside the cytoplasm, 1..n (n ≤ 250) from NE to PM.
    nucleus : bool ndarray
        Same shape.
    cell : bool ndarray or None
        Same shape; needed only where a method leaves cytoplasm without a shell.

    Returns
    -------
    uint8 ndarray
        0, 1..n, `NUCLEUS_ID`, `UNASSIGNED_ID`.
    """
    codes = shells.astype(np.uint8)
    if cell is not None:
        codes[cell & (codes == 0)] = UNASSIGNED_ID
    codes[nucleus.astype(bool, copy=False)] = NUCLEUS_ID
    return codes


def plane_indices(codes: np.ndarray) -> tuple[int, int, int]:
    """Where the three planes cut: the nucleus's centre (the cell's where no nucleus is seen), voxels."""
    mask = codes == NUCLEUS_ID
    if not mask.any():
        mask = codes != 0
    centre = []
    for axis in range(3):
        weight = np.count_nonzero(mask, axis=tuple(a for a in range(3) if a != axis))
        centre.append(int(np.rint(np.average(np.arange(weight.size), weights=weight))))
    return tuple(centre)


def coarse_steps(
    shape: tuple[int, ...], voxel_size_nm: tuple[float, ...], most: int = COARSE_VOXELS
) -> tuple[int, ...]:
    """Strides that make a volume small and its voxels as near to cubes as strides can.

    Parameters
    ----------
    shape : tuple of int
        (Z, Y, X).
    voxel_size_nm : tuple of float
        (Z, Y, X), nm.
    most : int
        Voxels along the longest side afterwards.
    """
    pitch = max(n * v for n, v in zip(shape, voxel_size_nm)) / most
    return tuple(max(1, round(pitch / v)) for v in voxel_size_nm)


def _bounding_box(codes: np.ndarray) -> tuple[slice, ...]:
    """Smallest box around the cell with a little air."""
    occupied = codes != 0
    box = []
    for axis in range(3):
        line = np.flatnonzero(occupied.any(axis=tuple(a for a in range(3) if a != axis)))
        if not line.size:
            raise ValueError("the cell to draw has no voxel: its codes are 0 everywhere")
        air = max(2, round(_MARGIN * (line[-1] - line[0] + 1)))
        box.append(slice(max(0, int(line[0]) - air), int(line[-1]) + 1 + air))
    return tuple(box)
