"""The command line: thin, one function a subcommand; flags of a pipeline come from its dataclass."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from cytomill import __version__
from cytomill.campaign.command_parser import CommandParser
from cytomill.runtime import signals
from cytomill.runtime.launcher import launched_first, launched_size
from cytomill.runtime.messages import say

#: What adds a subcommand: its name and what it does.
AddCommand = Callable[..., CommandParser]

#: Commands that write and do not share their work: several at once would write over one another.
_ALONE = {"nanoparticles", "convert", "phantom", "verify"}

#: Commands that share their work.
_SHARED = {"run", "report"}

#: Commands that may compile kernels first, which takes a while.
_COMPILING = _SHARED | _ALONE


def main(arguments: Sequence[str]) -> int:
    """Parse `arguments` and run the subcommand; returns the exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        if options.command not in _COMPILING or not launched_first():
            return _obey(options)
        from cytomill.runtime.numba_cache import telling_of_compiling

        with telling_of_compiling(say):
            return _obey(options)
    except KeyboardInterrupt:
        if options.command in _SHARED and (launched_size() or 1) > 1:
            raise  # to the hook that ends the other ranks too
        if launched_first():
            say("interrupted")
        return 130


def _obey(options: argparse.Namespace) -> int:
    if not (options.command == "run" and options.preview is None or options.command == "unit"):
        signals.restore()
    if options.command in _SHARED:
        # A rank's exception must reach the hook that ends the others too.
        return options.run(options)
    if options.command in _ALONE and (launched_size() or 1) > 1:
        if launched_first():
            say(
                f"'{options.command}' is work for one process, but the launcher started "
                f"{launched_size()}: start it without mpirun or srun"
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
    if launched_first():
        say(said)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands."""
    parser = CommandParser(
        prog="cytomill",
        description="Microscopy campaigns under MPI: segmented, measured, reported, resumable.",
        epilog="Exit codes: 0 finished, 1 failed, 2 refused, 3 finished with datasets set aside, 4 damage "
        "found, 5 locked by another run, 75 stopped (run again to go on).",
    )
    parser.add_argument("--version", action="version", version=f"cytomill {__version__}")
    commands = parser.add_commands("command", "COMMAND")
    _add_run(commands)
    _add_plan(commands)
    _add_every(_add_folder_command(commands, "status", "say how far a campaign is; changes nothing", _status))
    _add_folder_command(commands, "report", "write the HTML pages of a campaign again", _report)
    _add_verify(commands)
    _add_doctor(commands)
    _add_convert(commands)
    _add_phantom(commands)
    _add_nanoparticles(commands)
    _add_unit(commands)
    return parser


def _add_run(commands: AddCommand) -> None:
    parser = commands(
        "run", "run a campaign (alone, or under mpirun or srun); run it again to go on where it stopped"
    )
    parser.add_argument("campaign", type=Path, help="the campaign's TOML file")
    _add_overrides(parser)
    parser.add_argument(
        "--update",
        action="store_true",
        help="redo the stages whose options or input changed, and those that depend on them; without it "
        "such a run is refused",
    )
    parser.add_argument("--retry", action="store_true", help="give units and datasets set aside new attempts")
    parser.add_argument(
        "--max-failures",
        type=int,
        metavar="N",
        help="failed attempts, of all units in this launch, that the job bears: 0 ends it at the first, "
        "-1 bears any number (default: run.max_failures of the campaign file, or -1)",
    )
    parser.add_argument(
        "--preview",
        type=int,
        metavar="N",
        help="do nothing but write preview.html into the output folder: N slices of each stack, with what "
        "would be labelled at thresholds from 0.5 to 0.99",
    )
    parser.set_defaults(run=_run)


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        dest="overrides",
        help="replace a value of the campaign file, for example nanoparticles.halo_pad=10; may be given "
        "several times",
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
                say(f"dataset {name} is not shown: {why}")
            code = ExitCode.SET_ASIDE if missing else ExitCode.FINISHED
        except (ValueError, OSError, RuntimeError) as error:
            code = _refuse(error)
    # The others wait here: one sheet is not worth sharing.
    code = world.bcast(code)
    world.finish()
    return code


def _add_plan(commands: AddCommand) -> None:
    parser = commands("plan", "say what a run would need: units, memory, disk, time; reads headers only")
    parser.add_argument("campaign", type=Path, help="the campaign's TOML file")
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="MPI ranks of the run")
    parser.add_argument(
        "--ranks-per-node", type=int, metavar="N", help="ranks that share a node's memory (default: all)"
    )
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
    if launched_first():
        print_renderable(render_plan(plan, options.all))
    return 0 if plan.fits else 2


def _add_folder_command(commands: AddCommand, name: str, text: str, function) -> argparse.ArgumentParser:
    parser = commands(name, text)
    parser.add_argument("folder", type=Path, help="output folder of the campaign")
    parser.set_defaults(run=function)
    return parser


def _add_every(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all",
        action="store_true",
        help="show every stage of every dataset; otherwise rows that say the same share a line where there "
        "are more than 8 datasets",
    )


def _status(options: argparse.Namespace) -> int:
    from cytomill.campaign.status import read_status, render_status
    from cytomill.reports.terminal import print_renderable

    status = read_status(options.folder)
    if launched_first():
        print_renderable(render_status(status, options.all))
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


def _add_verify(commands: AddCommand) -> None:
    parser = commands("verify", "check every shard, table and partial result against the ledger")
    parser.add_argument("folder", type=Path, help="output folder of the campaign")
    parser.add_argument("--mend", action="store_true", help="have the next run make what is damaged again")
    parser.add_argument(
        "--inputs",
        action="store_true",
        help="also read every input and compare each slice with its checksum; otherwise headers, sizes and "
        "times are compared",
    )
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from cytomill.campaign.verify import verify
    from cytomill.runtime.failures import ExitCode
    from cytomill.runtime.lock import CampaignLocked

    try:
        report = verify(options.folder, mend=options.mend, inputs=options.inputs)
    except CampaignLocked as locked:
        say(str(locked))
        return ExitCode.LOCKED
    for problem in report.problems:
        print(problem)
    print(report.summary)
    return ExitCode.DAMAGED if report.problems else ExitCode.FINISHED


def _add_doctor(commands: AddCommand) -> None:
    parser = commands("doctor", "check MPI, devices, storage and memory of this machine")
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        help="folder for the write test, best the one that results will go to (default: the working folder)",
    )
    parser.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from cytomill.campaign.doctor import examine

    return examine(options.folder or Path.cwd())


def _add_convert(commands: AddCommand) -> None:
    from cytomill.campaign import conversion

    parser = commands("convert", "copy a volume of any format into an OME-Zarr store")
    conversion.add_flags(parser)
    parser.set_defaults(run=conversion.convert_volume)


def _add_phantom(commands: AddCommand) -> None:
    parser = commands("phantom", "make a synthetic specimen with known truth, and a campaign file for it")
    specimens = parser.add_commands("specimen", "SPECIMEN")
    from cytomill.campaign import phantom

    own = specimens("nanoparticles", "an SBF-SEM-like stack with nanoparticles")
    phantom.add_nanoparticle_flags(own)
    own.set_defaults(run=phantom.make_nanoparticle_phantom)
    own = specimens("partitioning", "cells with nucleus and granules, whose shells are known")
    phantom.add_partitioning_flags(own)
    own.set_defaults(run=phantom.make_partitioning_phantom)


def _add_nanoparticles(commands: AddCommand) -> None:
    from dataclasses import MISSING, fields

    from argparse_dataclass import ArgumentParser

    from cytomill.nanoparticles.config import NanoparticleSegConfig

    flags = ArgumentParser(NanoparticleSegConfig, add_help=False)
    # For the help: left alone, a flag that was not given has a mark in the place of its default.
    flags.set_defaults(
        **{f.name: f.default for f in fields(NanoparticleSegConfig) if f.default is not MISSING}
    )
    parser = commands(
        "nanoparticles",
        "segment one stack of a Zarr store in this process: results go into the store, the model to models/ "
        "beside it; three numbers are Z Y X",
        parents=[flags],
    )
    parser.set_defaults(run=_nanoparticles)


def _nanoparticles(options: argparse.Namespace) -> int:
    from cytomill.campaign.single import segment_stack

    return segment_stack(options)


def _add_unit(commands: AddCommand) -> None:
    # Without help: a rank starts it for a unit that may kill its process, nobody types it.
    parser = commands("unit")
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
