"""The command line: thin, one function a subcommand; flags of a pipeline come from its dataclass."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from cytomill import __version__
from cytomill.runtime.launcher import launched_first, launched_size

#: Commands that write and do not share their work: several at once would write over one another.
_ALONE = {"nanoparticles", "convert", "phantom", "verify"}


def main(arguments: Sequence[str]) -> int:
    """Parse `arguments` and run the subcommand; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command in ("run", "report"):
        # A rank's exception must reach the hook that ends the others too.
        return options.run(options)
    if options.command in _ALONE and (launched_size() or 1) > 1:
        if launched_first():
            print(
                f"cytomill: '{options.command}' is work for one process, but the launcher started "
                f"{launched_size()}: start it without mpirun or srun",
                file=sys.stderr,
            )
        return 2
    try:
        return options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        return _refuse(error)


def _refuse(error: ValueError | OSError | RuntimeError) -> int:
    """Say why nothing was done; a bug, of another kind than our own sentences, keeps its traceback."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename:
        said = f"{error.filename}: {error.strerror}"
    print(f"cytomill: {said}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="cytomill",
        description="Microscopy campaigns under MPI: segmented, measured, reported, resumable.",
        epilog="Exit codes: 0 finished, 1 failed, 2 refused, 3 finished with datasets set aside, 4 damage "
        "found, 5 locked by another run, 75 stopped (run again to go on).",
    )
    parser.add_argument("--version", action="version", version=f"cytomill {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands)
    _add_plan(commands)
    _add_every(_add_folder_command(commands, "status", "how far a campaign is", _status))
    _add_folder_command(commands, "report", "write the reports of a campaign again", _report)
    _add_verify(commands)
    _add_doctor(commands)
    _add_convert(commands)
    _add_phantom(commands)
    _add_nanoparticles(commands)
    _add_unit(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "run", help="run a campaign (alone, or under mpirun or srun); run it again to go on where it stopped"
    )
    parser.add_argument("campaign", type=Path, help="the campaign's TOML file")
    _add_overrides(parser)
    parser.add_argument(
        "--update", action="store_true", help="redo the stages whose options or input changed"
    )
    parser.add_argument("--retry", action="store_true", help="try units and datasets set aside again")
    parser.add_argument(
        "--max-failures",
        type=int,
        metavar="N",
        help="failed attempts that the job bears (0: none; default: any number)",
    )
    parser.add_argument(
        "--preview", type=int, metavar="N", help="only a contact sheet of N slices a dataset over thresholds"
    )
    parser.set_defaults(run=_run)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="override a value of the campaign file, for example nanoparticles.halo_pad=10",
    )


def _run(options: argparse.Namespace) -> int:
    from cytomill.campaign.run import RunOptions, run

    overrides = list(options.overrides)
    if options.max_failures is not None:
        overrides.append(f"run.max_failures={options.max_failures}")
    if options.preview is not None:
        return _preview(options.campaign, overrides, options.preview)
    return run(options.campaign, RunOptions(overrides, options.update, options.retry))


def _preview(campaign: Path, overrides: Sequence[str], slices: int) -> int:
    from cytomill.runtime.failures import ExitCode
    from cytomill.runtime.launcher import check_world
    from cytomill.runtime.ranks import connect, install_abort_hook

    world = connect()
    install_abort_hook(world)
    code = ExitCode.FINISHED
    if world.rank == 0:
        from cytomill.campaign.preview import preview

        try:
            check_world(world.size, world.library)
            path, missing = preview(campaign, overrides, slices)
            print(path)
            for name, why in missing.items():
                print(f"cytomill: dataset {name} is not shown: {why}", file=sys.stderr)
            code = ExitCode.SET_ASIDE if missing else ExitCode.FINISHED
        except (ValueError, OSError, RuntimeError) as error:
            code = _refuse(error) if launched_first() else ExitCode.REFUSED
    # The others wait here: one sheet is not worth sharing.
    code = world.bcast(code)
    world.finish()
    return code


def _add_plan(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "plan", help="what a run would do: units, memory, disk, time; reads headers only"
    )
    parser.add_argument("campaign", type=Path, help="the campaign's TOML file")
    parser.add_argument("--ranks", type=int, default=1, help="ranks of the run")
    parser.add_argument("--ranks-per-node", type=int, help="ranks that share a node's memory (default: all)")
    _add_overrides(parser)
    _add_every(parser)
    parser.set_defaults(run=_plan)


def _plan(options: argparse.Namespace) -> int:
    from cytomill.campaign.config import load_campaign
    from cytomill.campaign.plan import make_plan, render_plan
    from cytomill.reports.terminal import print_renderable

    plan = make_plan(
        load_campaign(options.campaign, options.overrides), options.ranks, options.ranks_per_node
    )
    print_renderable(render_plan(plan, options.all))
    return 0 if plan.fits else 2


def _add_folder_command(
    commands: argparse._SubParsersAction, name: str, text: str, function
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text)
    parser.add_argument("folder", type=Path, help="output folder of the campaign")
    parser.set_defaults(run=function)
    return parser


def _add_every(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", help="every stage of every dataset, also where there are many"
    )


def _status(options: argparse.Namespace) -> int:
    from cytomill.campaign.status import read_status, render_status
    from cytomill.reports.terminal import print_renderable

    print_renderable(render_status(read_status(options.folder), options.all))
    return 0


def _report(options: argparse.Namespace) -> int:
    from cytomill.campaign.config import CampaignError
    from cytomill.campaign.finish import write_reports
    from cytomill.runtime.ranks import connect, install_abort_hook

    world = connect()
    install_abort_hook(world)
    code = 0
    try:
        page = write_reports(options.folder, world)
        if world.rank == 0:
            print(page)
    except (ValueError, OSError, RuntimeError) as error:
        # What is wrong with the campaign every rank sees; with anything else the others would wait.
        if world.size > 1 and not isinstance(error, CampaignError):
            raise
        code = _refuse(error) if world.rank == 0 else 2
    world.finish()
    return code


def _add_verify(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "verify", help="check every shard, table and partial result against the ledger"
    )
    parser.add_argument("folder", type=Path, help="output folder of the campaign")
    parser.add_argument("--mend", action="store_true", help="have the next run make what is damaged again")
    parser.add_argument(
        "--inputs", action="store_true", help="also read the inputs and compare their checksums"
    )
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from cytomill.campaign.verify import verify
    from cytomill.runtime.failures import ExitCode
    from cytomill.runtime.lock import CampaignLocked

    try:
        report = verify(options.folder, mend=options.mend, inputs=options.inputs)
    except CampaignLocked as locked:
        print(f"cytomill: {locked}", file=sys.stderr)
        return ExitCode.LOCKED
    for problem in report.problems:
        print(problem)
    print(report.summary)
    return ExitCode.DAMAGED if report.problems else ExitCode.FINISHED


def _add_doctor(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("doctor", help="check MPI, devices, storage and memory of this machine")
    parser.add_argument("folder", type=Path, nargs="?", help="folder for the write test (default: this one)")
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from cytomill.campaign.doctor import examine

    return examine(options.folder or Path.cwd())


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("convert", help="copy a volume of any format into an OME-Zarr store")
    parser.add_argument("source", help="MRC, TIFF, NPY, NPZ, HDF5 (file.h5::/path) or OME-Zarr")
    parser.add_argument("store", type=Path, help="folder of the store; the volume becomes images/{z-y-x}")
    parser.add_argument(
        "--voxel-size-nm", type=float, nargs=3, metavar=("Z", "Y", "X"), help="where the file does not say it"
    )
    parser.add_argument(
        "--dtype", choices=("uint8", "uint16"), help="scale grey levels to it, as from int16 or float32"
    )
    parser.add_argument(
        "--grey-levels",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="what becomes 0 and the largest level (default: all of an integer type, else the data's range)",
    )
    parser.set_defaults(run=_convert)


def _convert(options: argparse.Namespace) -> int:
    from cytomill.runtime.telemetry import Progress
    from cytomill.storage.convert import convert
    from cytomill.storage.volumes import open_volume

    with open_volume(options.source) as volume:
        slices = volume.shape[0]
    with Progress(slices, "convert (slices)") as progress:
        array = convert(
            options.source,
            options.store,
            voxel_size_nm=options.voxel_size_nm,
            progress=lambda done, total: progress.update(done),
            dtype=options.dtype,
            grey_levels=options.grey_levels,
        )
    print(f"{array.root}/{array.name}: {' × '.join(map(str, array.shape))} {array.dtype}")
    return 0


def _add_phantom(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("phantom", help="make a synthetic specimen with known truth")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    from cytomill.campaign import phantom

    own = kinds.add_parser("nanoparticles", help="an SBF-SEM-like stack with bright nanoparticles")
    phantom.add_nanoparticle_flags(own)
    own.set_defaults(run=phantom.make_nanoparticle_phantom)
    own = kinds.add_parser("partitioning", help="cells with nucleus and granules, whose shells are known")
    phantom.add_partitioning_flags(own)
    own.set_defaults(run=phantom.make_partitioning_phantom)


def _add_nanoparticles(commands: argparse._SubParsersAction) -> None:
    from argparse_dataclass import ArgumentParser

    from cytomill.nanoparticles.config import NanoparticleSegConfig

    flags = ArgumentParser(NanoparticleSegConfig, add_help=False)
    parser = commands.add_parser(
        "nanoparticles", parents=[flags], help="segment one stack of a Zarr store in this process"
    )
    parser.set_defaults(run=_nanoparticles)


def _nanoparticles(options: argparse.Namespace) -> int:
    from cytomill.campaign.single import segment_stack

    return segment_stack(options)


def _add_unit(commands: argparse._SubParsersAction) -> None:
    # Without help: a rank starts it for a unit that may kill its process, nobody types it.
    parser = commands.add_parser("unit")
    parser.add_argument("output", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("stage")
    parser.add_argument("unit", type=int)
    parser.add_argument("--result", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.set_defaults(run=_unit)


def _unit(options: argparse.Namespace) -> int:
    from cytomill.campaign.unit import run_unit

    run_unit(options.output, options.dataset, options.stage, options.unit, options.result, options.parent)
    return 0
