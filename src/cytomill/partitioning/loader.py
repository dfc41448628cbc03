"""Loading a whole image into memory by one call, whatever its format."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cytomill.storage.volumes import Volume, VolumeError, open_volume, parse_selector

#: Vendors' formats, and the plugin of bioio that reads each.
VENDOR_PLUGINS = {".lif": "bioio-lif", ".czi": "bioio-czi", ".nd2": "bioio-nd2"}


class UniversalDataLoader:
    """Load images by one call: every format of :func:`~cytomill.storage.volumes.open_volume`, and JSON."""

    _last_metadata: ClassVar[dict[str, Any]] = {}

    @staticmethod
    def load_data(
        file_path: str | os.PathLike,
        channel: int | None = None,
        normalize: bool = False,
        return_metadata: bool = False,
    ) -> Any:
        """Load a file.

        Parameters
        ----------
        file_path : path-like
            MRC (also gz and bz2), TIFF (OME, ImageJ, BigTIFF; a folder or pattern of planes), NPY, NPZ (its
            first array), HDF5, OME-Zarr, each with an optional selector (``a.npz::key``, ``a.tif::c=0``);
            JSON; and, where bioio and its plugin are installed, LIF, CZI and ND2.
        channel : int, optional
            Channel to load, from 0, where the file has a channel axis.
        normalize : bool
            Bring the values to [0, 1] (float32) by the smallest and the largest finite one; a constant image
            becomes 0.
        return_metadata : bool
            Return what the file says too.

        Returns
        -------
        (Z, Y, X) ndarray
            A single plane has Z = 1.  What a JSON file holds, as Python objects.
        dict
            With `return_metadata`: ``path``, ``format``, ``shape``, ``dtype``, ``voxel_size_nm`` (None where
            the file does not say), and ``channels`` where they are known.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ImportError
            If a vendor's format needs a package that is not installed; the sentence names it.
        ValueError
            If the file is damaged, of an unknown format, or not one volume.
        """
        if channel is not None and channel < 0:
            raise ValueError(f"channels count from 0; found {channel}")
        path, _ = parse_selector(os.fspath(file_path))
        require_file(path)
        suffix = Path(path).suffix.lower()
        if suffix == ".json":
            data, metadata = _load_json(Path(path))
        else:
            load = _load_vendor if suffix in VENDOR_PLUGINS else _load_volume
            data, metadata = load(os.fspath(file_path), channel)
            if normalize:
                data = _normalized(data)
                metadata["dtype"] = str(data.dtype)
        UniversalDataLoader._last_metadata = metadata
        return (data, dict(metadata)) if return_metadata else data

    @staticmethod
    def get_last_metadata() -> dict[str, Any]:
        """What the file loaded last says; empty before the first."""
        return dict(UniversalDataLoader._last_metadata)

    @staticmethod
    def batch_load(
        file_list: Iterable[str | os.PathLike], channel: int | None = None, normalize: bool = False
    ) -> dict[str, Any]:
        """Load several files.

        Returns
        -------
        dict
            Array by file as given; None for one that cannot be loaded, whose reason
            :meth:`get_last_metadata` holds under ``errors``.
        """
        results: dict[str, Any] = {}
        errors: dict[str, str] = {}
        for file in file_list:
            try:
                results[os.fspath(file)] = UniversalDataLoader.load_data(file, channel, normalize)
            except (OSError, ValueError, ImportError) as error:
                results[os.fspath(file)] = None
                errors[os.fspath(file)] = str(error)
        UniversalDataLoader._last_metadata = {**UniversalDataLoader._last_metadata, "errors": errors}
        return results


def require_file(path: str) -> None:
    """Refuse a path without a file.

    Raises
    ------
    FileNotFoundError
        If `path` is neither a file nor a folder nor a pattern.
    """
    if not os.path.exists(path) and not any(character in path for character in "*?["):
        raise FileNotFoundError(f"there is no file {path}: check the path")


def _load_volume(path: str, channel: int | None) -> tuple[np.ndarray, dict[str, Any]]:
    file, selector = parse_selector(path)
    arrays: dict[str, Any] = {}
    if file.lower().endswith(".npz") and selector.inner is None:
        arrays = {"files": _arrays_of(file)}
        path = _selected(path, arrays["files"][0])
    with _open_channel(path, channel) as volume:
        data = volume.read()
        metadata = {
            "path": file,
            "format": volume.format,
            "shape": data.shape,
            "dtype": str(data.dtype),
            "voxel_size_nm": volume.voxel_size_nm,
            **arrays,
        }
    return data, metadata


def _open_channel(path: str, channel: int | None) -> Volume:
    """A volume of one channel is channel 0 of its file; the first axis of a stack is never taken for one."""
    if channel is None:
        return open_volume(path)
    try:
        volume = open_volume(path)
    except VolumeError:
        return open_volume(_selected(path, f"c={channel}"))
    if channel > 0:
        volume.close()
        raise VolumeError(
            f"{path} has one channel, no channel {channel}; if its first axis is that of channels, name the "
            f"axes: {_selected(path, 'axes=cyx')}."
        )
    return volume


def _selected(path: str, part: str) -> str:
    return f"{path},{part}" if "::" in path else f"{path}::{part}"


def _arrays_of(path: str) -> list[str]:
    with np.load(path, allow_pickle=False) as archive:
        if not archive.files:
            raise VolumeError(f"{path} holds no array.")
        return list(archive.files)


def _load_json(path: Path) -> tuple[Any, dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise VolumeError(f"{path} is no JSON that can be read ({error}).") from error
    return data, {"path": str(path), "format": "JSON", "type": type(data).__name__}


def _load_vendor(path: str, channel: int | None) -> tuple[np.ndarray, dict[str, Any]]:
    file, _ = parse_selector(path)
    plugin = VENDOR_PLUGINS[Path(file).suffix.lower()]
    missing = [name for name in ("bioio", plugin) if importlib.util.find_spec(name.replace("-", "_")) is None]
    if missing:
        raise ImportError(
            f"{file} is of a vendor's format, which is read through bioio; install what is missing "
            f"(pip install {' '.join(missing)}), or export the image as OME-TIFF"
        )
    import bioio

    image = bioio.BioImage(file)
    channels = int(image.dims.C)
    if channel is not None and channel >= channels:
        raise VolumeError(f"{file} has {channels} channels; channel {channel} is none of them.")
    if channel is None and channels > 1:
        raise VolumeError(f"{file} has {channels} channels: say which (channel=0 to {channels - 1}).")
    data = np.ascontiguousarray(image.get_image_data("ZYX", C=channel or 0, T=0))
    sizes = image.physical_pixel_sizes
    known = None not in (sizes.Z, sizes.Y, sizes.X)
    return data, {
        "path": file,
        "format": plugin.removeprefix("bioio-").upper(),
        "shape": data.shape,
        "dtype": str(data.dtype),
        "voxel_size_nm": tuple(1000.0 * s for s in (sizes.Z, sizes.Y, sizes.X)) if known else None,
        "channels": channels,
    }


def _normalized(data: np.ndarray) -> np.ndarray:
    values = data.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros_like(values)
    # The ends in the image's own type: 16 or 32 bits do not fit a float32.
    low, high = data[finite].min(), data[finite].max()
    if high == low:
        return np.where(finite, np.float32(0), values)
    return (values - np.float32(low)) / np.float32(float(high) - float(low))
