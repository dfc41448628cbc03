"""`cytomill phantom`: specimens with known truth, written as files that a campaign can name."""

from __future__ import annotations

import argparse
import json
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

# The command line is made of these flags at every start: nothing heavy is imported before it is used.

if TYPE_CHECKING:
    from cytomill.phantoms.nanoparticles import NanoparticlePhantom

VOXEL_SIZE_NM = (50.0, 10.0, 10.0)
CHUNKS = (1, 1024, 1024)
TRUTH = "labels/truth"


def add_nanoparticle_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `cytomill phantom nanoparticles`."""
    parser.add_argument("output", type=Path, help="folder to make: stack.zarr, phantom.json, campaign.toml")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(32, 512, 512), metavar=("Z", "Y", "X"), help="voxels"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="everything random follows from it")
    parser.add_argument(
        "--load", type=float, default=0.01, metavar="SHARE", help="share of particle voxels, 0 to 0.1"
    )
    parser.add_argument("--dtype", choices=("uint8", "uint16"), default="uint8", help="of the pixels")
    parser.add_argument(
        "--polarity", choices=("bright", "dark"), default="bright", help="particles against the tissue"
    )
    parser.add_argument(
        "--drift",
        type=float,
        default=0.0,
        metavar="LEVELS",
        help="largest brightness offset of a slice, 8-bit grey levels",
    )
    parser.add_argument(
        "--blank",
        type=int,
        nargs="*",
        default=(),
        metavar="Z",
        help="slices that are left black, by number from 0 (default: none)",
    )
    parser.add_argument(
        "--voxel-size-nm",
        type=float,
        nargs=3,
        default=VOXEL_SIZE_NM,
        metavar=("Z", "Y", "X"),
        help="voxel size in nm",
    )


def make_nanoparticle_phantom(options: argparse.Namespace) -> int:
    """Write the phantom that the flags describe, and a campaign file for it."""
    from cytomill.phantoms.nanoparticles import NanoparticlePhantom

    phantom = NanoparticlePhantom(
        tuple(options.shape),
        options.seed,
        options.load,
        dtype=options.dtype,
        polarity=options.polarity,
        drift=options.drift,
        blank_slices=tuple(options.blank),
    )
    write_phantom(phantom, options.output, tuple(options.voxel_size_nm))
    print(f"{options.output / 'campaign.toml'}")
    return 0


def write_phantom(
    phantom: NanoparticlePhantom, folder: Path, voxel_size_nm: tuple[float, float, float] = VOXEL_SIZE_NM
) -> None:
    """Write a phantom slab by slab: the stack, its truth, how it was made, and a campaign file.

    Parameters
    ----------
    phantom : NanoparticlePhantom
        Recipe.
    folder : Path
        Made where it does not exist.
    voxel_size_nm : tuple of float
        (Z, Y, X), written to the stack.
    """
    from numpy import stack

    from cytomill.storage.durable import make_directories, write_atomic
    from cytomill.storage.stores import default_shards, fit_chunks, open_store, spacing_name

    make_directories(folder)
    spacing = spacing_name(voxel_size_nm)
    chunks = fit_chunks(phantom.shape, CHUNKS)
    shards = default_shards(phantom.shape, phantom.dtype, chunks)
    store = open_store(folder / "stack.zarr")
    image = store.create(f"images/{spacing}", phantom.shape, phantom.dtype, chunks, shards)
    truth = store.create(f"{TRUTH}/{spacing}", phantom.shape, "uint8", chunks, shards, is_labels=True)
    particle_voxels = 0
    for start in range(0, phantom.shape[0], shards[0]):
        stop = min(start + shards[0], phantom.shape[0])
        slices = [phantom.slice(z) for z in range(start, stop)]
        image.write(((start, stop),), stack([pixels for pixels, _ in slices]))
        mask = stack([particles for _, particles in slices]).astype("uint8")
        truth.write(((start, stop),), mask)
        particle_voxels += int(mask.sum())
    facts = {
        "shape": list(phantom.shape),
        "seed": phantom.seed,
        "load_asked": phantom.load,
        "load": particle_voxels / float(prod(phantom.shape)),
        "dtype": str(phantom.dtype),
        "polarity": phantom.polarity,
        "drift": phantom.drift,
        "blank_slices": list(phantom.blank_slices),
        "voxel_size_nm": list(voxel_size_nm),
        "truth": f"{TRUTH}/{spacing}",
    }
    write_atomic(folder / "phantom.json", (json.dumps(facts, indent=1) + "\n").encode())
    campaign = (
        "# Written by `cytomill phantom nanoparticles`; run it with\n"
        "#   mpirun -n 2 cytomill run campaign.toml\n"
        '[campaign]\nname = "phantom"\noutput = "results"\n\n'
        '[[dataset]]\nname = "stack"\npipeline = "nanoparticles"\ninput = "stack.zarr"\n'
    )
    write_atomic(folder / "campaign.toml", campaign.encode())


def add_partitioning_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of `cytomill phantom partitioning`."""
    parser.add_argument("output", type=Path, help="folder to make: volumes, phantom.json, campaign.toml")
    parser.add_argument(
        "--kind",
        choices=("spheres", "dent", "hela", "tissue"),
        default="dent",
        help="concentric spheres, a dented cell, a large adherent cell, or many cells",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="FACTOR", help="enlarges all lengths of the cells"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="everything random follows from it")
    parser.add_argument(
        "--voxel-size-nm",
        type=float,
        nargs=3,
        metavar=("Z", "Y", "X"),
        help="voxel size in nm (default: the kind's own)",
    )
    parser.add_argument("--format", choices=("zarr", "tiff"), default="zarr", help="of the volumes")
    parser.add_argument(
        "--cells",
        type=int,
        nargs=3,
        default=(6, 6, 6),
        metavar=("Z", "Y", "X"),
        help="cells along each axis, of a tissue only",
    )


def make_partitioning_phantom(options: argparse.Namespace) -> int:
    """Write the cells that the flags describe, and a campaign file for them."""
    from cytomill.phantoms.cell_files import write_cell_phantom
    from cytomill.storage.durable import write_atomic

    facts = write_cell_phantom(
        options.output,
        options.kind,
        options.voxel_size_nm,
        options.scale,
        options.seed,
        options.format,
        tuple(options.cells),
    )
    files = facts["files"]
    single = "cell" in files
    nucleus = "ne_labels = [2]" if single else f'nucleus = "{files["nuclei"]}"'
    campaign = (
        "# Written by `cytomill phantom partitioning`; run it with\n"
        "#   mpirun -n 2 cytomill run campaign.toml\n"
        '[campaign]\nname = "phantom"\noutput = "results"\n\n'
        f'[[dataset]]\nname = "{options.kind}"\npipeline = "partitioning"\n'
        f'input = "{files["cell" if single else "cells"]}"\n\n'
        f'[dataset.partitioning]\n{nucleus}\norganelles = ["granules={files["organelle"]}"]\n'
    )
    write_atomic(options.output / "campaign.toml", campaign.encode())
    print(f"{options.output / 'campaign.toml'}")
    return 0
