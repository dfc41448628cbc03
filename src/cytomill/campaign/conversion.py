"""`cytomill convert`: a volume of any format becomes an image of an OME-Zarr store."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path

# The command line is made of these flags at every start: nothing heavy is imported before it is used.


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `cytomill convert`."""
    parser.add_argument("source", help="MRC, TIFF, NPY, NPZ, HDF5 (file.h5::/path) or OME-Zarr")
    parser.add_argument(
        "store", type=Path, help="folder of the store; the volume becomes images/{z-y-x} (voxel size in nm)"
    )
    parser.add_argument(
        "--voxel-size-nm",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="voxel size in nm, in the place of the file's (default: what the file states)",
    )
    parser.add_argument(
        "--dtype",
        choices=("uint8", "uint16"),
        help="scale grey levels linearly to this type, as from int16 or float32 (default: pixels stay as "
        "they are)",
    )
    parser.add_argument(
        "--grey-levels",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="with --dtype: what becomes 0 and the largest level; what lies outside is cut (default: all "
        "values of an integer type no wider than --dtype, else the smallest and the largest finite value)",
    )


def convert_volume(options: argparse.Namespace) -> int:
    """Copy the volume that the flags name; what is wrong is said in terms of the flags."""
    from cytomill.runtime.telemetry import Progress
    from cytomill.storage.convert import convert
    from cytomill.storage.volumes import open_volume

    if options.grey_levels is not None and options.dtype is None:
        raise ValueError("--grey-levels LOW HIGH needs --dtype uint8 or --dtype uint16")
    with open_volume(options.source) as volume:
        if volume.voxel_size_nm is None and options.voxel_size_nm is None:
            raise ValueError(f"{options.source} does not state its voxel size; give --voxel-size-nm Z Y X")
    shown: list[Progress] = []
    with ExitStack() as stack:

        def show(done: int, total: int) -> None:
            # Only now: before, the source may still be refused.
            if not shown:
                shown.append(stack.enter_context(Progress(total, "convert (slices)")))
            shown[0].update(done)

        array = convert(
            options.source,
            options.store,
            voxel_size_nm=options.voxel_size_nm,
            progress=show,
            dtype=options.dtype,
            grey_levels=options.grey_levels,
        )
    print(f"{array.root}/{array.name}: {' × '.join(map(str, array.shape))} {array.dtype}")
    return 0
