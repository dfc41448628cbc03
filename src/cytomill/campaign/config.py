"""A campaign file (TOML) with command-line overrides, read into frozen dataclasses.

Everything that can be wrong is refused here, in one sentence: which file and key, what was found,
what was expected. What is accepted is stored as JSON by rank 0 and taken from there at a restart.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cytomill.campaign.datasets import (
    Dataset,
    absolute,
    absolute_options,
    check_name,
    check_places,
    check_unique,
    expand,
    override,
)
from cytomill.campaign.keys import CampaignKeys, DatasetKeys
from cytomill.campaign.pipelines import PIPELINES
from cytomill.campaign.settings import (
    Argument,
    CampaignError,
    RunSettings,
    build,
    kinds_of,
    nearest,
    parse_argument,
    read_table,
    unknown_key,
    unknown_target,
)

__all__ = [
    "Campaign",
    "CampaignError",
    "Dataset",
    "RunSettings",
    "from_resolved",
    "load_campaign",
    "resolved",
]

DEFAULT_PIPELINES: Mapping[str, type] = {name: pipeline.config for name, pipeline in PIPELINES.items()}

#: Fields of a pipeline's configuration that the run fills in: where a dataset's store is, its spacing.
FILLED_BY_THE_RUN = ("root_path", "spacing_dir")

#: Version of what :func:`resolved` returns.
RESOLVED_FORMAT = 1


@dataclass(frozen=True)
class Campaign:
    """A list of datasets and how to run them.

    Parameters
    ----------
    name : str
        The campaign's name.
    output : Path
        Folder of the results, absolute.
    run : RunSettings
        How, never what.
    datasets : tuple of Dataset
        In the order of the file.
    source : Path
        The campaign file, absolute.
    warnings : tuple of str
        Sentences to say at the start.
    """

    name: str
    output: Path
    run: RunSettings
    datasets: tuple[Dataset, ...]
    source: Path
    warnings: tuple[str, ...] = ()


def load_campaign(
    path: str | os.PathLike,
    overrides: Sequence[str] = (),
    pipelines: Mapping[str, type] = DEFAULT_PIPELINES,
) -> Campaign:
    """Read a campaign file.

    Parameters
    ----------
    path : path-like
        The TOML file. Relative paths in it, and in `overrides`, start at its folder.
    overrides : sequence of str
        ``section.key=value``, ``dataset.<name>.key=value`` or ``dataset.<name>.<pipeline>.key=value``;
        the value is read as TOML, or is a text where it is none. A later one wins.
    pipelines : dict of str to type
        Configuration dataclass of each pipeline. Fields of :data:`FILLED_BY_THE_RUN` are left empty.

    Returns
    -------
    Campaign

    Raises
    ------
    CampaignError
        One sentence on what is wrong and what was expected.
    """
    source = Path(os.path.abspath(path))
    document = _parse(source)
    _check_top(document, source, pipelines)
    of_datasets = []
    for target, argument in map(parse_argument, overrides):
        if target[0] == "dataset":
            of_datasets.append((".".join(target[1:]), argument))
        else:
            _check_target(target, argument, pipelines)
            override(document, target, argument)

    hints = _hints(pipelines)
    keys = _built(CampaignKeys, document.get("campaign", {}), f"{source}, [campaign]", hints=hints)
    run = _built(RunSettings, document.get("run", {}), f"{source}, [run]", hints=hints)
    defaults = {name: _options(document, name, pipelines, f"{source}, [{name}]", hints) for name in pipelines}
    name = source.stem if keys.name is None else keys.name
    check_name(name, f"{source}, [campaign]")
    output = Path(absolute(keys.output or f"{name}-results", source.parent))
    tables = _dataset_tables(document, source, pipelines)
    for rest, argument in of_datasets:
        _override_dataset(tables, rest, argument, pipelines)
    datasets = tuple(
        _dataset(table, source, f"{source}, dataset '{label}'", defaults, pipelines)
        for label, table in tables.items()
    )
    check_unique([(dataset.name, dataset.input) for dataset in datasets], str(source))
    check_places(datasets, output, str(source))
    used = {dataset.pipeline for dataset in datasets}
    unused = [name for name in pipelines if name in document and name not in used]
    warnings = tuple(f"{source}: [{name}] is not used, no dataset has that pipeline" for name in unused)
    return Campaign(name, output, run, datasets, source, warnings)


def resolved(campaign: Campaign) -> dict[str, Any]:
    """Return the campaign as JSON-able values, complete: names with a time in them included."""
    return {
        "format": RESOLVED_FORMAT,
        "name": campaign.name,
        "output": str(campaign.output),
        "source": str(campaign.source),
        "run": _plain(asdict(campaign.run)),
        "datasets": [
            {
                "name": dataset.name,
                "pipeline": dataset.pipeline,
                "input": dataset.input,
                "voxel_size_nm": _plain(dataset.voxel_size_nm),
                "options": _plain(asdict(dataset.options)),
            }
            for dataset in campaign.datasets
        ],
        "warnings": list(campaign.warnings),
    }


def from_resolved(stored: Mapping[str, Any], pipelines: Mapping[str, type] = DEFAULT_PIPELINES) -> Campaign:
    """Return the campaign that :func:`resolved` described, equal in every field.

    No input is looked at: a stored campaign is also read to show what was done.

    Raises
    ------
    CampaignError
        A key is absent, unknown or of another type, the format or a pipeline is not known here.
    """
    where = "the stored campaign"
    if not isinstance(stored, Mapping):
        raise CampaignError(f"{where}: expected an object with keys, found a {type(stored).__name__}")
    if stored.get("format") != RESOLVED_FORMAT:
        raise CampaignError(
            f"{where}: expected format {RESOLVED_FORMAT}, found {stored.get('format')}; another version "
            "wrote it, so choose a new output folder"
        )
    try:
        return Campaign(
            name=stored["name"],
            output=Path(stored["output"]),
            run=_built(RunSettings, stored["run"], f"{where}, run"),
            datasets=tuple(_stored_dataset(dataset, where, pipelines) for dataset in stored["datasets"]),
            source=Path(stored["source"]),
            warnings=tuple(stored["warnings"]),
        )
    except KeyError as absent:
        raise CampaignError(f"{where}: the key {absent} is needed and absent") from absent
    except (TypeError, AttributeError) as failure:
        raise CampaignError(f"{where}: it is damaged, a value has another type ({failure})") from failure


def _stored_dataset(stored: Mapping[str, Any], where: str, pipelines: Mapping[str, type]) -> Dataset:
    where = f"{where}, dataset '{stored['name']}'"
    schema = _schema_of(stored["pipeline"], where, pipelines)
    keys = _built(DatasetKeys, {key: stored[key] for key in stored if key != "options"}, where)
    options = _built(schema, stored["options"], where)
    return Dataset(keys.name, stored["pipeline"], keys.input, keys.voxel_size_nm, options)


def _built(schema: type, table: Any, where: str, **how: Any) -> Any:
    return build(schema, read_table(table, schema, where, **how), where)


def _plain(value: Any) -> Any:
    """Tuples as lists, as they come back from JSON."""
    if isinstance(value, dict):
        return {key: _plain(element) for key, element in value.items()}
    return [_plain(element) for element in value] if isinstance(value, (list, tuple)) else value


def _parse(source: Path) -> dict[str, Any]:
    try:
        # An editor's byte-order mark is no part of the text.
        return tomllib.loads(source.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise CampaignError(f"{source}: no such campaign file; give the path of a TOML file") from None
    except OSError as failure:
        raise CampaignError(f"{source}: the campaign file cannot be read: {failure.strerror}") from failure
    except UnicodeDecodeError as failure:
        raise CampaignError(f"{source}: expected TOML in UTF-8, found other bytes: {failure}") from failure
    except tomllib.TOMLDecodeError as failure:
        raise CampaignError(f"{source}: not valid TOML: {failure}") from failure


def _check_top(document: Mapping[str, Any], source: Path, pipelines: Mapping[str, type]) -> None:
    sections = ("campaign", "run", *pipelines)
    for key, value in document.items():
        if key == "dataset":
            if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
                raise CampaignError(f"{source}: datasets are written [[dataset]], in two pairs of brackets")
        elif key not in sections:
            where = f"{source}, outside the known sections"
            raise unknown_key(where, key, (*sections, "dataset"), _hints(pipelines))
        elif not isinstance(value, dict):
            raise CampaignError(f"{source}: '{key}' is a section, written [{key}] once, its keys below it")
    if not document.get("dataset"):
        raise CampaignError(f"{source}: there is no dataset; add a [[dataset]] with an input")


def _hints(pipelines: Mapping[str, type], inside_dataset: bool = False) -> dict[str, str]:
    """What to do with a key that is known, but in another section."""
    sections = {"[campaign]": CampaignKeys, "[run]": RunSettings, "[[dataset]]": DatasetKeys}
    sections |= {
        f"[dataset.{name}]" if inside_dataset else f"[{name}]": pipelines[name] for name in pipelines
    }
    homes: dict[str, list[str]] = {}
    for section, schema in sections.items():
        for key in kinds_of(schema):
            homes.setdefault(key, []).append(section)
    hints = {key: f"it belongs in {' or '.join(found)}." for key, found in homes.items()}
    return hints | dict.fromkeys(FILLED_BY_THE_RUN, "the run fills it in, leave it out.")


def _options(
    holder: Mapping[str, Any],
    pipeline: str,
    pipelines: Mapping[str, type],
    where: str,
    hints: Mapping[str, str],
) -> dict[str, Any]:
    """The options of a pipeline in a file or in one dataset."""
    table = holder.get(pipeline, {})
    return read_table(table, pipelines[pipeline], where, leave_out=FILLED_BY_THE_RUN, hints=hints)


def _targets(sections: Mapping[str, type]) -> list[str]:
    pairs = [(name, key) for name, schema in sections.items() for key in kinds_of(schema)]
    return [f"{name}.{key}" for name, key in pairs if key not in FILLED_BY_THE_RUN]


def _check_target(target: Sequence[str], argument: Argument, pipelines: Mapping[str, type]) -> None:
    sections = {"campaign": CampaignKeys, "run": RunSettings, **pipelines}
    known = _targets(sections)
    if ".".join(target) not in known:
        raise unknown_target(argument, ".".join(target), [*known, "dataset.<name>.<key>"])


def _dataset_tables(
    document: Mapping[str, Any], source: Path, pipelines: Mapping[str, type]
) -> dict[str, dict[str, Any]]:
    """Checked ``[[dataset]]`` tables by name, one a file where the input is a pattern."""
    hints = _hints(pipelines, inside_dataset=True)
    tables = []
    for number, table in enumerate(document["dataset"], start=1):
        named = table.get("name", table.get("input"))
        where = f"{source}, [[dataset]] " + (f"'{named}'" if isinstance(named, str) else f"number {number}")
        read = read_table(table, DatasetKeys, where, also=pipelines, hints=hints)
        own = {
            name: _options(table, name, pipelines, f"{where}, [dataset.{name}]", hints) for name in pipelines
        }
        tables += expand(read | {name: own[name] for name in own if name in table}, source.parent, where)
    check_unique([(table["name"], table.get("input", "no input")) for table in tables], str(source))
    return {table["name"]: table for table in tables}


def _override_dataset(
    tables: Mapping[str, dict], rest: str, argument: Argument, pipelines: Mapping[str, type]
) -> None:
    # Names may hold dots; the longest that fits is meant.
    name = max((name for name in tables if rest.startswith(name + ".")), key=len, default=None)
    if name is None:
        meant = nearest(rest.partition(".")[0], tables)
        hint = f"did you mean '{meant}'?" if meant else "no name is like it."
        raise CampaignError(
            f"{argument.where}: no dataset has the name at the start of '{rest}'; {hint} "
            f"Expected dataset.<name>.<key>=value with one of the names {', '.join(tables)}"
        )
    key = rest[len(name) + 1 :]
    known = [*kinds_of(DatasetKeys), *_targets(pipelines)]
    if key not in known:
        raise unknown_target(argument, key, known)
    override(tables[name], key.split("."), argument)


def _schema_of(pipeline: str, where: str, pipelines: Mapping[str, type]) -> type:
    if pipeline not in pipelines:
        meant = nearest(pipeline, pipelines)
        hint = f"; did you mean '{meant}'?" if meant else ""
        raise CampaignError(
            f"{where} pipeline: expected one of {', '.join(pipelines)}, found '{pipeline}'{hint}"
        )
    return pipelines[pipeline]


def _dataset(
    table: Mapping[str, Any],
    source: Path,
    where: str,
    defaults: Mapping[str, Mapping[str, Any]],
    pipelines: Mapping[str, type],
) -> Dataset:
    keys = _built(DatasetKeys, table, where, also=pipelines)
    check_name(keys.name, where)
    pipeline = keys.pipeline
    if pipeline is None:
        # What there are options for is meant; the first pipeline is the one that needs none.
        own = [name for name in pipelines if name in table]
        named = own or [name for name in pipelines if defaults[name]] or list(pipelines)[:1]
        if len(named) != 1:
            raise CampaignError(f"{where}: the key 'pipeline' is needed; one of {', '.join(pipelines)}")
        pipeline = named[0]
    schema = _schema_of(pipeline, where, pipelines)
    for other in pipelines:
        if other in table and other != pipeline:
            raise CampaignError(f"{where}: it has [dataset.{other}], but its pipeline is '{pipeline}'")
    empty = {key: "" for key in FILLED_BY_THE_RUN if key in kinds_of(schema)}
    own = _options(table, pipeline, pipelines, f"{where}, [dataset.{pipeline}]", {})
    given = absolute_options(schema, {**defaults[pipeline], **own}, source.parent)
    options = build(schema, {**empty, **given}, f"{where}, {pipeline}")
    return Dataset(keys.name, pipeline, absolute(keys.input, source.parent), keys.voxel_size_nm, options)
