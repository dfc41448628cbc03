"""The class API: partition one cell in one process, under the names that users of the method know.

A thin layer: masks are cleaned by :mod:`~cytomill.partitioning.masks`, shells come from the modules that
the pipeline uses.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from cytomill.kernels.cell_codes import check_shell_count
from cytomill.kernels.voxel_size import checked_voxel_size
from cytomill.partitioning import pairs_compat
from cytomill.partitioning.coordinates import PartitionCoordinates, sample_coordinates
from cytomill.partitioning.masks import CellMask
from cytomill.partitioning.membrane_pairs import MembranePairs
from cytomill.partitioning.membranes import as_volume_points, crop_of, paint_edge, place_shells
from cytomill.partitioning.pairing import find_pairs, nucleus_center
from cytomill.partitioning.pairs import partition_by_pairs
from cytomill.partitioning.xvg_writing import save_partition_coords


class Partitioning(MembranePairs):
    """Cut the cytoplasm of a cell into shells from the nuclear envelope (NE) to the plasma membrane (PM).

    Parameters
    ----------
    root_dir : path-like
        Folder for results; it and its ``results`` folder are made, with their parents.
    n_slices : int
        Shells, 1 to 250.
    num_cores : int, optional
        Threads (default 1). Results do not depend on it.
    compat : bool
        Compute as the published reference does, defects included: the same edges, pairs and shells.
    method : {"normalized", "pairs", "pairs_edt"}
        What :meth:`create_radial_partitions` does.
    field : {"edt", "laplace", "ray"}
        Radial position of method "normalized".
    voxel_size_nm : sequence of float, optional
        (Z, Y, X). Not given: that of the files that :meth:`load_mask_data` reads, else cubes of 1.
    seed : int
        Samples of coordinates follow from it.
    ne_labels, pm_labels : sequence of int
        Labels that make up the nucleus and the cell in volumes of labels; empty: all that is not 0.

    Attributes
    ----------
    notes : tuple of str
        What the rules for masks changed in the masks used last, a sentence each.

    Raises
    ------
    ValueError
        If a value makes no sense.
    """

    def create_nepm_radial_partitions(
        self,
        ne_edge: np.ndarray,
        pm_edge: np.ndarray,
        shape: Sequence[int],
        n_slices: int | None = None,
        pm_mask: np.ndarray | None = None,
        ne_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Partition by NE-PM pairs: method "pairs", see :mod:`~cytomill.partitioning.pairs`.

        Parameters
        ----------
        ne_edge, pm_edge : (N, 3), (M, 3) ndarray
            Of :meth:`extract_ne_pm_edges`.
        shape : sequence of int
            Of the volume, (Z, Y, X), or (Y, X).
        n_slices : int, optional
            Shells; default that of the constructor.
        pm_mask, ne_mask : ndarray of `shape`, optional
            Cell and nucleus; where one is missing, the inside of its edge is taken.

        Returns
        -------
        uint8 ndarray of `shape`
            1 (at the NE) to `n_slices` in the cytoplasm, every voxel of it; 0 elsewhere.

        Raises
        ------
        ValueError
            If masks and shape differ, there is no cell with a nucleus, or no pair.
        """
        n = self._shells(n_slices)
        if self.compat:
            _require_shape(shape)
            return pairs_compat.partition_pure(
                ne_edge, pm_edge, shape, n, pm_mask, ne_mask, workers=self._threads
            )
        cell, edges = self._cell_of(ne_edge, pm_edge, shape, pm_mask, ne_mask)
        crop = crop_of(cell)
        nucleus, body = cell.paint(crop)
        corner = np.array([low for low, _ in crop])
        size = checked_voxel_size(self.voxel_size_nm)
        pairs = find_pairs(
            nucleus_center(nucleus),
            *(points - corner for points in edges),
            voxel_size_nm=size,
            workers=self._threads,
        )
        shells, _ = partition_by_pairs(pairs, len(pairs), body & ~nucleus, n, size, self._threads)
        return place_shells([(crop, shells)], cell.shape).reshape(tuple(shape))

    def create_nepm_radial_partitions_with_edt(
        self,
        ne_edge: np.ndarray,
        pm_edge: np.ndarray,
        shape: Sequence[int],
        n_slices: int | None = None,
        pm_mask: np.ndarray | None = None,
        ne_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Partition by pairs guided by distances, for irregular cells: method "pairs_edt".

        Parameters, result and errors as :meth:`create_nepm_radial_partitions`; the surfaces are those of
        the masks.  See :mod:`~cytomill.partitioning.pairs_edt`.
        """
        n = self._shells(n_slices)
        if self.compat:
            _require_shape(shape)
            return pairs_compat.partition_with_edt(
                ne_edge, pm_edge, shape, n, pm_mask, ne_mask, workers=self._threads
            )
        cell, _ = self._cell_of(ne_edge, pm_edge, shape, pm_mask, ne_mask)
        return self._partition([cell], shape, n, "pairs_edt")

    def create_nepm_radial_partitions_pure_pairs(
        self,
        ne_edge: np.ndarray,
        pm_edge: np.ndarray,
        shape: Sequence[int],
        n_slices: int | None = None,
        pm_mask: np.ndarray | None = None,
        ne_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Deprecated name of :meth:`create_nepm_radial_partitions`."""
        _deprecated("create_nepm_radial_partitions_pure_pairs", "create_nepm_radial_partitions")
        return self.create_nepm_radial_partitions(ne_edge, pm_edge, shape, n_slices, pm_mask, ne_mask)

    def create_shell_based_partitions(
        self,
        ne_edge: np.ndarray,
        pm_edge: np.ndarray,
        shape: Sequence[int],
        n_slices: int | None = None,
        pm_mask: np.ndarray | None = None,
        ne_mask: np.ndarray | None = None,
    ) -> np.ndarray:
        """Deprecated name of :meth:`create_nepm_radial_partitions_with_edt`."""
        _deprecated("create_shell_based_partitions", "create_nepm_radial_partitions_with_edt")
        return self.create_nepm_radial_partitions_with_edt(
            ne_edge, pm_edge, shape, n_slices, pm_mask, ne_mask
        )

    def create_radial_partitions(
        self, pm_mask: np.ndarray, ne_mask: np.ndarray, n_slices: int | None = None, cells: str = "auto"
    ) -> np.ndarray:
        """Partition by the method and field of the constructor, straight from the masks.

        Parameters
        ----------
        pm_mask, ne_mask : (Z, Y, X) or (Y, X) ndarray
            Cell and nucleus, or volumes of labels.
        n_slices : int, optional
            Shells; default that of the constructor.
        cells : {"auto", "one", "many"}
            One cell, or cell label i with nucleus label i: see
            :func:`~cytomill.partitioning.masks.find_cells`.

        Returns
        -------
        uint8 ndarray
            1 (at the NE) to `n_slices` in the cytoplasm of every cell, 0 elsewhere.

        Raises
        ------
        ValueError
            If there is no cell with a nucleus; one sentence.
        """
        n = self._shells(n_slices)
        if self.compat:
            _, ne_edge, pm_edge = self.extract_ne_pm_edges(pm_mask, ne_mask)
            return self.create_nepm_radial_partitions(
                ne_edge, pm_edge, np.shape(pm_mask), n, pm_mask, ne_mask
            )
        found = self._cells(pm_mask, ne_mask, cells)
        return self._partition(found, np.shape(pm_mask), n, self.method)

    def _shells(self, n_slices: int | None) -> int:
        n = self.n_slices if n_slices is None else n_slices
        check_shell_count(n)
        self._shells_made = n
        return n

    def _cell_of(
        self,
        ne_edge: np.ndarray,
        pm_edge: np.ndarray,
        shape: Sequence[int],
        pm_mask: np.ndarray | None,
        ne_mask: np.ndarray | None,
    ) -> tuple[CellMask, list[np.ndarray]]:
        """The cleaned cell, and the edges as points (Z, Y, X)."""
        if len(shape) not in (2, 3):
            raise ValueError(f"shape is that of a volume (Z, Y, X) or a plane (Y, X); found {tuple(shape)}")
        edges = [as_volume_points(edge) for edge in (ne_edge, pm_edge)]
        masks = []
        for edge, mask in zip(edges, (ne_mask, pm_mask), strict=True):
            if mask is None:
                mask = paint_edge(edge, shape)
            elif np.shape(mask) != tuple(shape):
                raise ValueError(f"a mask has the shape {np.shape(mask)}; found shape = {tuple(shape)}")
            masks.append(mask)
        (cell,) = self._cells(masks[1], masks[0], "one")
        return cell, edges

    def _partition(self, cells: Sequence[CellMask], shape: Sequence[int], n: int, method: str) -> np.ndarray:
        from cytomill.partitioning.shells import cell_shells

        how = (n, method, self.field, self.voxel_size_nm)
        parts = (
            (crop_of(cell), cell_shells(*cell.paint(crop_of(cell)), *how, cell.cut_faces, self._threads))
            for cell in cells
        )
        return place_shells(parts, cells[0].shape).reshape(tuple(shape))

    def extract_partition_coordinates(
        self, partition_mask: np.ndarray, sampling_density: float = 0.1
    ) -> PartitionCoordinates:
        """Take a share of each shell's voxels, the same ones for the same seed.

        Parameters
        ----------
        partition_mask : (Z, Y, X) ndarray
            Shell ids.
        sampling_density : float
            Share in (0, 1]; 1 takes all, and at least one voxel a shell is taken.

        Returns
        -------
        dict
            Id → (N, 3) int32 array (Z, Y, X), ids ascending; it keeps the number of shells of the partition
            that was made last, as an empty outermost one has no id.

        Raises
        ------
        ValueError
            If the density is no share, or the partition holds no ids.
        """
        return sample_coordinates(partition_mask, sampling_density, self.seed, self._shells_made)

    def save_partition_coords_to_xvg(
        self,
        partition_coords: Mapping[int, np.ndarray] | Sequence[np.ndarray],
        dataid: str,
        output_dir: str | os.PathLike,
    ) -> str:
        """Write ``{output_dir}/{dataid}_partition_coords.xvg``: :mod:`~cytomill.partitioning.xvg_writing`.

        Parameters
        ----------
        partition_coords : mapping of int to (N, 3) ndarray
            Of :meth:`extract_partition_coordinates`; of a list, the first is partition 1.
        dataid : str
            Identifier of the dataset.
        output_dir : path-like
            Made where it does not exist.

        Returns
        -------
        str
            `output_dir`.

        Raises
        ------
        ValueError
            If `dataid` is no file name, or the points are none.
        """
        save_partition_coords(partition_coords, dataid, output_dir, self._stated_size, self.compat)
        return os.fspath(output_dir)


def _require_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3:
        raise ValueError(f"compat takes volumes (Z, Y, X); found shape = {tuple(shape)}: use compat=False")


def _deprecated(old: str, new: str) -> None:
    warnings.warn(f"{old} is deprecated: use {new}", DeprecationWarning, stacklevel=3)
