"""Masks, membranes and NE-PM pairs of one cell: the first half of the class API."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cytomill.kernels.cell_codes import check_shell_count
from cytomill.kernels.devices import on_gpu
from cytomill.kernels.voxel_size import checked_voxel_size
from cytomill.partitioning import pairs_compat
from cytomill.partitioning.config import FIELDS, METHODS
from cytomill.partitioning.mask_values import check_shapes
from cytomill.partitioning.masks import CellMask
from cytomill.partitioning.membranes import as_volume_points, clean_cells, membrane_points, read_mask
from cytomill.partitioning.pairing import find_pairs
from cytomill.partitioning.smoothing import smooth_mask

#: Voxel sizes of two files that differ by less are the same.
_SAME_SIZE = 1e-3


class MembranePairs:
    """What :class:`~cytomill.partitioning.api.Partitioning` does before the shells; see there."""

    def __init__(
        self,
        root_dir: str | os.PathLike,
        n_slices: int = 8,
        num_cores: int | None = None,
        *,
        compat: bool = False,
        method: str = "normalized",
        field: str = "edt",
        voxel_size_nm: Sequence[float] | None = None,
        seed: int = 0,
        ne_labels: Sequence[int] = (),
        pm_labels: Sequence[int] = (),
    ) -> None:
        check_shell_count(n_slices)
        for name, value, known in (("method", method, METHODS), ("field", field, FIELDS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}; found {value!r}")
        if num_cores is not None and num_cores < 1:
            raise ValueError(f"num_cores counts threads from 1; found {num_cores}")
        self.root_dir = root_dir
        self.n_slices = n_slices
        self.num_cores = num_cores
        self.compat = compat
        self.method = method
        self.field = field
        self.seed = seed
        self.ne_labels = tuple(ne_labels)
        self.pm_labels = tuple(pm_labels)
        self.notes: tuple[str, ...] = ()
        self._shells_made: int | None = None
        self._given_size: tuple[float, ...] | None = None
        self._file_size: tuple[float, ...] | None = None
        if voxel_size_nm is not None:
            self._given_size = tuple(checked_voxel_size(voxel_size_nm).tolist())
        (Path(root_dir) / "results").mkdir(parents=True, exist_ok=True)

    @property
    def _stated_size(self) -> tuple[float, ...] | None:
        return self._given_size or self._file_size

    @property
    def voxel_size_nm(self) -> tuple[float, ...]:
        """Voxel size (Z, Y, X): the one given, else that of the files read last, else cubes of 1."""
        return self._stated_size or (1.0, 1.0, 1.0)

    @property
    def _threads(self) -> int:
        return self.num_cores or 1

    def load_mask_data(
        self, ne_path: str | os.PathLike, pm_path: str | os.PathLike
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the nucleus and the cell from files of any format of :func:`open_volume`.

        Parameters
        ----------
        ne_path, pm_path : path-like
            Masks, or volumes of labels (also one and the same, with `ne_labels` and `pm_labels`); with
            an optional selector, ``cells.h5::/ne``.

        Returns
        -------
        ne_mask, pm_mask : (Z, Y, X) bool ndarray
            A plane has Z = 1.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If a format is unknown, a file damaged, or the values are no mask; if shapes or voxel sizes of
            the two differ.
        """
        ne_mask, ne_size = read_mask(ne_path, self.ne_labels, "the NE mask")
        pm_mask, pm_size = read_mask(pm_path, self.pm_labels, "the PM mask")
        check_shapes(ne_mask.shape, pm_mask.shape)
        if ne_size and pm_size and not np.allclose(ne_size, pm_size, rtol=_SAME_SIZE, atol=0):
            raise ValueError(
                f"the NE mask has voxels of {ne_size} nm and the PM mask of {pm_size} nm, but they must lie "
                "on the same voxels: correct the size in one of the files"
            )
        known = pm_size or ne_size
        self._file_size = tuple(map(float, known)) if known else None
        return ne_mask, pm_mask

    @staticmethod
    def smooth_mask(mask: np.ndarray, sigma: float = 1.0, close_iter: int = 2) -> np.ndarray:
        """See :func:`cytomill.partitioning.smoothing.smooth_mask`."""
        return smooth_mask(mask, sigma, close_iter)

    def extract_ne_pm_edges(
        self,
        pm_mask: np.ndarray,
        ne_mask: np.ndarray,
        smooth_sigma: float = 1.0,
        smooth_close_iter: int = 2,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find the centre of the nucleus and points on the two membranes.

        Parameters
        ----------
        pm_mask, ne_mask : (Z, Y, X) or (Y, X) ndarray
            Cell and nucleus: bool, 0/1, 0/255 or labels.  A membrane only, or a cell without its nucleus, is
            filled.
        smooth_sigma : float
            Of the Gaussian that smooths both, voxels; 0 switches all smoothing off.
        smooth_close_iter : int
            Iterations of the closing after it.

        Returns
        -------
        center : (3,) float64 ndarray
            Mean voxel of the nucleus, (Z, Y, X); of planes (Y, X).
        ne_edge, pm_edge : (N, 3), (M, 3) ndarray
            Points (Z, Y, X) in voxels on the sub-voxel surface (``compat``: integer voxels along it); none
            on a face of the volume that cuts the cell.  Of planes (N, 2).

        Raises
        ------
        ValueError
            If there is no cell with a nucleus in the masks, or smoothing leaves nothing of one.
        """
        if self.compat:
            _require_volumes(pm_mask, ne_mask)
            return pairs_compat.extract_ne_pm_edges(pm_mask, ne_mask, smooth_sigma, smooth_close_iter)
        (cell,) = self._cells(pm_mask, ne_mask, "one")
        found = membrane_points(cell, smooth_sigma, smooth_close_iter, self.voxel_size_nm)
        return tuple(points[..., 1:] for points in found) if np.ndim(pm_mask) == 2 else found

    def _cells(self, pm_mask: np.ndarray, ne_mask: np.ndarray, cells: str) -> list[CellMask]:
        """Cells of the masks, cleaned; what the rules changed is noted."""
        found, self.notes = clean_cells(
            pm_mask, ne_mask, self.pm_labels, self.ne_labels, cells, self.voxel_size_nm
        )
        return found.cells

    @staticmethod
    def min_angle(ne_points: np.ndarray, pm_point: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Return the NE point in the direction of a PM point, seen from the centre.

        Parameters
        ----------
        ne_points : (N, 3) ndarray
        pm_point, center : (3,) ndarray

        Returns
        -------
        (3,) ndarray
            The row of `ne_points` with the smallest angle, the first of equal ones; a point at the centre
            has none and is last.

        Raises
        ------
        ValueError
            If there is no NE point.
        """
        ne_points = np.asarray(ne_points)
        if not len(ne_points):
            raise ValueError("the smallest angle is sought among no NE points: check the NE mask")
        away = ne_points - np.asarray(center, np.float64)
        towards = np.asarray(pm_point, np.float64) - np.asarray(center, np.float64)
        length = np.linalg.norm(away, axis=1)
        cosine = np.full(len(away), -np.inf)
        known = length > 0
        cosine[known] = away[known] @ towards / length[known]
        return ne_points[np.argmax(cosine)]

    def find_ne_pm_pairs(
        self,
        center: np.ndarray,
        ne_edge: np.ndarray,
        pm_edge: np.ndarray,
        step: int = 8,
        save_txt: bool = False,
        dataid: str | None = None,
    ) -> np.ndarray:
        """Pair points of the two membranes by the smallest angle about the centre.

        Parameters
        ----------
        center : (3,) ndarray
            In voxels.
        ne_edge, pm_edge : (N, 3), (M, 3) ndarray
            Of :meth:`extract_ne_pm_edges`. CuPy arrays are searched on their device; the pairs are the same.
        step : int
            Every how manieth point of either membrane starts a pair (``compat`` ignores it).
        save_txt : bool
            Write ``{root_dir}/results/{dataid}_pairs.txt`` too.
        dataid : str, optional
            Needed for that.

        Returns
        -------
        (K, 6) ndarray
            NE and PM point of each pair, on the host ((K, 4) for planes).

        Raises
        ------
        ValueError
            If there is no NE or PM point, or a file is asked for without `dataid`.
        """
        if save_txt and not dataid:
            raise ValueError("save_txt needs a dataid, which names the file")
        if self.compat:
            pairs = pairs_compat.find_ne_pm_pairs(center, ne_edge, pm_edge, self._threads)
        else:
            xp: Any = np
            if on_gpu(ne_edge) or on_gpu(pm_edge):
                import cupy as xp
            flat = np.ndim(ne_edge) == 2 and ne_edge.shape[1] == 2
            points = map(as_volume_points, (center, ne_edge, pm_edge))
            pairs = find_pairs(*points, step, self.voxel_size_nm, xp=xp, workers=self._threads)
            if flat:
                pairs = pairs[:, [1, 2, 4, 5]]
        if save_txt:
            folder = Path(self.root_dir) / "results"
            folder.mkdir(parents=True, exist_ok=True)
            np.savetxt(folder / f"{dataid}_pairs.txt", pairs, fmt="%.2f")
        return pairs

    @staticmethod
    def points_along_vector(p1: np.ndarray, p2: np.ndarray, n_slices: int) -> np.ndarray:
        """Cut the way from `p1` to `p2` in equal parts: (n_slices + 1, 3) points, both ends included."""
        if n_slices < 1:
            raise ValueError(f"a way is cut into at least one part; found n_slices = {n_slices}")
        start, end = np.asarray(p1), np.asarray(p2)
        return start + (end - start) * np.arange(n_slices + 1)[:, None] / n_slices

    def shell_partition(self, pairs: np.ndarray, cell_mask: np.ndarray | None = None) -> list[np.ndarray]:
        """Cut every pair into `n_slices` equal parts: the points of the shells' surfaces.

        Parameters
        ----------
        pairs : (K, 6) ndarray
            Of :meth:`find_ne_pm_pairs`.
        cell_mask : (Z, Y, X) ndarray, optional
            Points whose voxel is 0 here are left out.

        Returns
        -------
        list of (P, 3) ndarray
            `n_slices` + 1 surfaces at t = k/n, NE first, without repetitions.  ``compat``: fewer parts for
            short pairs and more for long ones, as the reference does for 1000 pairs or fewer.
        """
        if self.compat:
            return pairs_compat.shell_partition(pairs, _any_cell(pairs, cell_mask), self.n_slices)
        return self.shell_partition_optimized(pairs, cell_mask)

    def shell_partition_optimized(
        self, pairs: np.ndarray, cell_mask: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """As :meth:`shell_partition`; ``compat``: with equal parts for every pair."""
        if self.compat:
            return pairs_compat.shell_partition_optimized(pairs, _any_cell(pairs, cell_mask), self.n_slices)
        surfaces = []
        for k in range(self.n_slices + 1):
            points = pairs_compat.points_along_pairs(pairs, k, self.n_slices)
            if cell_mask is not None:
                points = points[_in_mask(points, np.asarray(cell_mask))]
            surfaces.append(np.unique(points, axis=0))
        return surfaces


def _require_volumes(pm_mask: np.ndarray, ne_mask: np.ndarray) -> None:
    """Refuse what the published code has no answer for."""
    check_shapes(np.shape(ne_mask), np.shape(pm_mask))
    if np.ndim(pm_mask) != 3:
        raise ValueError(f"compat takes volumes (Z, Y, X); found {np.ndim(pm_mask)} axes: use compat=False")
    for name, mask in (("NE", ne_mask), ("PM", pm_mask)):
        if np.asarray(mask).dtype.kind == "f" and not np.isfinite(mask).all():
            raise ValueError(f"the {name} mask holds values that are no numbers: set such voxels to 0")


def _any_cell(pairs: np.ndarray, cell_mask: np.ndarray | None) -> np.ndarray:
    """The mask, or one that drops no point of the pairs."""
    if cell_mask is not None:
        return cell_mask
    points = np.asarray(pairs).reshape(-1, 3)
    return np.broadcast_to(np.uint8(1), points.max(axis=0, initial=0).astype(np.int64) + 1)


def _in_mask(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    voxels = np.rint(points).astype(np.int64)
    inside = ((voxels >= 0) & (voxels < mask.shape)).all(axis=1)
    inside[inside] = mask[tuple(voxels[inside].T)] > 0
    return inside
