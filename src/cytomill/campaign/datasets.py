"""The datasets of a campaign: inputs found by path or pattern, named so that they can be folders."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cytomill.campaign.settings import Argument, CampaignError, nearest

#: Between a file and the volume in it: ``stack.h5::/raw/volume``.
SELECTOR = "::"

_NAMED_PATH = re.compile(r"([\w .-]+)=(.+)", re.DOTALL)
_FOREIGN = re.compile(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]')
#: File systems limit a name to 255 bytes; suffixes and temporary names need some of them.
_MOST_NAME_BYTES = 200


@dataclass(frozen=True)
class Dataset:
    """One input and what is done with it.

    Parameters
    ----------
    name : str
        Unique in the campaign, safe as a folder's name.
    pipeline : str
        Name of the pipeline.
    input : str
        Absolute path, with a ``::`` selector where the file holds several volumes.
    voxel_size_nm : tuple of (float, float, float) or None
        (Z, Y, X) in nm, in the place of the file's own; None takes the file's.
    options : object
        The pipeline's configuration (a dataclass).
    """

    name: str
    pipeline: str
    input: str
    voxel_size_nm: tuple[float, float, float] | None
    options: Any


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key in which ``slice-9`` comes before ``slice-10``."""
    parts = re.split(r"([0-9]+)", text)
    return [(1, int(part), part) if i % 2 else (0, 0, part) for i, part in enumerate(parts)]


def check_name(name: str, where: str) -> None:
    """Refuse a name that cannot be a folder's name everywhere.

    Raises
    ------
    CampaignError
        The name is empty, hidden, too long, or has characters that a file system or shell takes
        for something else.
    """
    flaw = None
    if not name.strip():
        flaw = "it is empty"
    elif found := _FOREIGN.search(name):
        flaw = f"it holds the character {found.group()!r}"
    elif name[0] in ".-":
        flaw = f"it begins with '{name[0]}'"
    elif name != name.strip() or name[-1] == ".":
        flaw = "it begins or ends with a space, or ends with a dot"
    elif len(os.fsencode(name)) > _MOST_NAME_BYTES:
        flaw = f"it is longer than {_MOST_NAME_BYTES} bytes"
    if flaw:
        raise CampaignError(
            f"{where}: the name {name!r} cannot name a folder, because {flaw}; "
            "give a name of letters, digits, '-', '_' and '.'"
        )


def stem(path: str) -> str:
    """Name of a dataset from its file: without folder, selector, suffix, and `.ome` before the suffix."""
    name = Path(path.partition(SELECTOR)[0]).name
    base, suffix = os.path.splitext(name)
    if suffix.lower() in (".gz", ".bz2", ".xz", ".zst"):
        base = os.path.splitext(base)[0]
    return base[:-4] if base.lower().endswith(".ome") and len(base) > 4 else base


def absolute(path: str, folder: Path) -> str:
    """`path` made absolute against `folder`, ``~`` expanded, its selector kept."""
    file, mark, selector = path.partition(SELECTOR)
    return os.path.abspath(os.path.join(folder, os.path.expanduser(file))) + mark + selector


#: In a list of named paths: the results of another dataset of the campaign (``particles=@stack``).
OF_DATASET = "@"


def named_path(text: str) -> tuple[str, str]:
    """Split ``name=path``; a path alone is named after its file.

    Parameters
    ----------
    text : str
        The path may be ``@dataset``, which is named after the dataset.
    """
    if found := _NAMED_PATH.fullmatch(text):
        return found[1], found[2]
    return (text[1:] if text.startswith(OF_DATASET) else stem(text)), text


def absolute_options(schema: type, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Options with their paths made absolute: fields with the metadata `path`, lists of named paths too."""
    paths = {f.name for f in fields(schema) if f.metadata.get("path")}

    def complete(text: str) -> str:
        if not text or text.startswith(OF_DATASET):
            return text
        return absolute(text, folder)

    def complete_named(text: str) -> str:
        name, path = named_path(text)
        return f"{name}={complete(path)}"

    made = dict(options)
    for name in paths & set(options):
        value = options[name]
        made[name] = tuple(map(complete_named, value)) if isinstance(value, tuple) else complete(value)
    return made


def expand(table: Mapping[str, Any], folder: Path, where: str) -> list[dict[str, Any]]:
    """Make one table a dataset from a ``[[dataset]]`` table, whose input may be a pattern.

    Parameters
    ----------
    table : dict
        Checked ``[[dataset]]`` table.
    folder : Path
        Relative inputs start here.
    where : str
        File and section, for messages.

    Returns
    -------
    list of dict
        Copies with `name` and an absolute `input`; in natural order of their paths for a pattern.

    Raises
    ------
    CampaignError
        A pattern finds nothing, a name is given to several files, or there is neither name nor input.
    """
    if not table.get("input"):
        if "name" not in table:
            raise CampaignError(f"{where}: the key 'input' is needed; give the path of an image stack")
        return [dict(table)]
    path = absolute(table["input"], folder)
    pattern, mark, selector = table["input"].partition(SELECTOR)
    if not glob.has_magic(pattern) or os.path.exists(path.partition(SELECTOR)[0]):
        return [{"name": stem(path), **table, "input": path}]
    # Only what the author wrote is a pattern; the folder's own name may hold brackets.
    matches = glob.glob(os.path.expanduser(pattern), root_dir=folder, recursive=True)
    found = sorted({os.path.abspath(folder / match) for match in matches}, key=natural_key)
    if not found:
        raise CampaignError(
            f"{where} input: no file matches the pattern; searched for {path.partition(SELECTOR)[0]}"
        )
    if "name" in table and len(found) > 1:
        raise CampaignError(
            f"{where}: one name, '{table['name']}', for the {len(found)} files that match '{pattern}'; "
            "leave the name out (each is named by its file) or list the files one by one"
        )
    return [{"name": stem(path), **table, "input": path + mark + selector} for path in found]


def check_unique(named: Sequence[tuple[str, str]], where: str) -> None:
    """Refuse two datasets of one name.

    Parameters
    ----------
    named : sequence of (str, str)
        Name and input of every dataset.
    where : str
        The file, for messages.

    Raises
    ------
    CampaignError
        Names both inputs.
    """
    first: dict[str, str] = {}
    for name, path in named:
        if name in first:
            raise CampaignError(
                f"{where}: two datasets are named '{name}' ({first[name]} and {path}); "
                "give each a name of its own"
            )
        first[name] = path


def check_places(datasets: Sequence[Dataset], output: Path, where: str) -> None:
    """Refuse an output that is a file or lies in an input.

    Raises
    ------
    CampaignError
        Names input and output.
    """
    # os.path answers for folders that may not be entered, where pathlib raises.
    if os.path.exists(output) and not os.path.isdir(output):
        raise CampaignError(
            f"{where}: the output {output} is a file; choose a folder, new or of this campaign"
        )
    for dataset in datasets:
        file = Path(dataset.input.partition(SELECTOR)[0])
        if os.path.exists(file) and (output == file or file in output.parents):
            raise CampaignError(
                f"{where}: the output {output} lies in the input {file} of dataset '{dataset.name}', "
                "and inputs are never written to; choose another output"
            )


def check_input_exists(dataset: Dataset) -> None:
    """Raise ValueError where a dataset's input is not there; names what in its folder is like it.

    Asked when the dataset is opened, so that one that is missing is set aside and the others go on.
    """
    file = Path(dataset.input.partition(SELECTOR)[0])
    if not os.path.exists(file):
        raise ValueError(f"no such input: {file}{_resembling(file)}")


def _resembling(file: Path) -> str:
    if not os.path.isdir(file.parent):
        return f" (there is no folder {file.parent})"
    try:
        meant = nearest(file.name, (entry.name for entry in file.parent.iterdir()))
    except OSError:
        return ""
    return f" (did you mean '{meant}'?)" if meant else ""


def override(table: dict[str, Any], path: Sequence[str], argument: Argument) -> None:
    """Put a command-line value into a table, at a key (one part) or a sub-table's key (two parts)."""
    for part in path[:-1]:
        table[part] = dict(table.get(part, {}))
        table = table[part]
    table[path[-1]] = argument
