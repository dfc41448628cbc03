"""What a section of a campaign file may hold: keys and types are those of a dataclass.

Also the settings of a run (`[run]`), which say how work is done and never change a value.
"""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

SHARING_MODES = ("auto", "counter", "static")
DEVICES = ("auto", "cpu", "gpu")


class CampaignError(ValueError):
    """A campaign cannot be used as written; the message is one sentence for its author."""


@dataclass(frozen=True)
class RunSettings:
    """How a campaign is run; the results do not depend on it.

    Parameters
    ----------
    max_failures : int
        Failed attempts of one launch, over all units, that the job bears; 0 ends it at the first, -1
        bears any number.
    attempts : int
        Failures of one unit before it is set aside.
    sharing : str
        How ranks share units: `counter` (one-sided), `static`, or `auto`.
    device : str
        `cpu`, `gpu`, or `auto` (the GPU where the rank has one).
    memory_per_rank_gb : float
        Memory that one rank may use, in 10⁹ bytes; 0 takes the machine's limit shared by its ranks.
    slices_per_unit : int
        Depth of a slab in slices; 0 lets the plan choose.
    block : tuple of (int, int, int)
        Block of 3-D stages, (Z, Y, X) voxels; zeros let the plan choose.

    Raises
    ------
    ValueError
        A value out of its range.
    """

    max_failures: int = field(
        default=-1, metadata={"help": "failed attempts that the job bears (0: none, -1: any number)"}
    )
    attempts: int = field(default=3, metadata={"help": "failures of a unit before it is set aside"})
    sharing: str = field(default="auto", metadata={"choices": SHARING_MODES, "help": "how ranks share units"})
    device: str = field(default="auto", metadata={"choices": DEVICES, "help": "where kernels run"})
    memory_per_rank_gb: float = field(
        default=0.0, metadata={"help": "memory of a rank, 10⁹ bytes (0: the machine's limit, shared)"}
    )
    slices_per_unit: int = field(default=0, metadata={"help": "slices a unit (0: planned)"})
    block: tuple[int, int, int] = field(
        default=(0, 0, 0), metadata={"help": "block of 3-D stages, voxels Z Y X (zeros: planned)"}
    )

    def __post_init__(self) -> None:
        least = {"max_failures": -1, "attempts": 1, "memory_per_rank_gb": 0, "slices_per_unit": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} is {getattr(self, name)}, expected {bound} or more")
        if any(self.block) and min(self.block) < 1:
            raise ValueError(f"block is {list(self.block)}, expected three lengths above 0, or three zeros")


@dataclass(frozen=True)
class Argument:
    """A value given on the command line, in the place of the file's.

    Parameters
    ----------
    where : str
        The argument as it was written, for messages.
    text : str
        The value's text.
    value : object
        The text read as TOML; the text itself where it is none.
    """

    where: str
    text: str
    value: Any


@dataclass(frozen=True)
class Kind:
    """The type of one key.

    Parameters
    ----------
    scalar : type
        One of bool, int, float, str: the type of the value or of a list's elements.
    is_list, optional : bool
        Whether it is a list; whether it may be absent (None).
    count : int or None
        Length of the list; None for any.
    choices : tuple
        Values allowed; empty for any.
    """

    scalar: type
    is_list: bool = False
    count: int | None = None
    optional: bool = False
    choices: tuple = ()

    def __str__(self) -> str:
        if self.choices:
            return "one of " + ", ".join(_shown(choice) for choice in self.choices)
        if not self.is_list:
            return _ONE[self.scalar]
        many = _MANY[self.scalar]
        return f"{many} in [ ]" if self.count is None else f"{self.count} {many} in [ ]"


_ONE = {bool: "true or false", int: "an integer", float: "a number", str: "a text in quotes"}
_MANY = {bool: "values true or false", int: "integers", float: "numbers", str: "texts"}


def kinds_of(schema: type) -> dict[str, Kind]:
    """Keys of a section and their types, from a dataclass.

    The annotations int, float, str, bool, tuple and Optional of these are understood, with the
    field metadata `choices`, `nargs` and `type` (of a bare tuple's elements) of argparse-dataclass.

    Raises
    ------
    TypeError
        A field's annotation is none of these.
    """
    hints = typing.get_type_hints(schema)
    taken = [f for f in fields(schema) if f.init]
    return {f.name: _kind(hints[f.name], f.metadata, f"{schema.__name__}.{f.name}") for f in taken}


def _kind(hint: Any, metadata: Mapping[str, Any], name: str) -> Kind:
    optional = False
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        optional = len(members) < len(typing.get_args(hint))
        hint = members[0] if len(members) == 1 else hint
    choices = tuple(metadata.get("choices", ()))
    if typing.get_origin(hint) is typing.Literal:
        choices = typing.get_args(hint)
        hint = type(choices[0])
    if hint in (bool, int, float, str):
        return Kind(hint, optional=optional, choices=choices)
    if hint is tuple or typing.get_origin(hint) is tuple:
        elements = typing.get_args(hint)
        nargs = metadata.get("nargs")
        count = nargs if isinstance(nargs, int) else None
        if elements and elements[-1] is not Ellipsis:
            count = len(elements)
        scalar = elements[0] if elements else metadata.get("type", float)
        if scalar in (bool, int, float, str):
            return Kind(scalar, is_list=True, count=count, optional=optional)
    raise TypeError(f"{name}: a campaign file has no value of the type {hint}")


def parse_argument(text: str) -> tuple[list[str], Argument]:
    """Split ``section.key=value`` into its path and its value.

    Raises
    ------
    CampaignError
        There is no ``=``.
    """
    target, mark, value = text.partition("=")
    where = f"--set {text}"
    if not mark:
        raise CampaignError(f"{where}: expected section.key=value, for example --set run.max_failures=0")
    try:
        parsed = tomllib.loads(f"value = {value.strip()}")
    except tomllib.TOMLDecodeError:
        parsed = {}
    # A line break in the text would make further keys.
    read = parsed["value"] if list(parsed) == ["value"] else value
    return target.strip().split("."), Argument(where, value, read)


def unknown_target(argument: Argument, target: str, known: Sequence[str]) -> CampaignError:
    """The sentence about an argument for a key that nobody knows."""
    same_key = [name for name in known if name.rpartition(".")[2] == target.rpartition(".")[2]]
    meant = same_key[0] if len(same_key) == 1 else nearest(target, known)
    hint = f"did you mean '{meant}'?" if meant else "no name is like it."
    section = (meant or target).partition(".")[0] + "."
    allowed = [name for name in known if name.startswith(section)] or known
    return CampaignError(f"{argument.where}: unknown key '{target}'; {hint} Allowed: {', '.join(allowed)}")


def read_table(
    table: Any,
    schema: type,
    where: str,
    *,
    leave_out: Iterable[str] = (),
    also: Iterable[str] = (),
    hints: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Check a section against a dataclass and convert its values.

    Parameters
    ----------
    table : dict
        The section as TOML or JSON gives it; values may be :class:`Argument`.
    schema : type
        Dataclass whose fields are the keys.
    where : str
        File and section, for messages.
    leave_out : iterable of str
        Fields that may not be given here.
    also : iterable of str
        Further keys allowed here and not read (sub-tables).
    hints : dict of str to str, optional
        For keys that are known but not allowed here, what to do (a sentence).

    Returns
    -------
    dict of str to object
        The values given, by field: tuples for lists, float where a float is meant.

    Raises
    ------
    CampaignError
        An unknown key, or a value of another type.
    """
    if not isinstance(table, Mapping):
        raise CampaignError(f"{where}: expected a section with keys, found {_found(table)}")
    kinds = {name: kind for name, kind in kinds_of(schema).items() if name not in set(leave_out)}
    also = tuple(also)
    values = {}
    for key, value in table.items():
        if key in kinds:
            values[key] = _read_value(value, kinds[key], where, key)
        elif key not in also:
            raise unknown_key(where, key, (*kinds, *also), hints)
    return values


def build(schema: type, values: Mapping[str, Any], where: str) -> Any:
    """Make the dataclass `schema` from checked values; its own refusal gets `where` in front.

    Raises
    ------
    CampaignError
        A required field is absent, or the dataclass refuses a value.
    """
    for f in fields(schema):
        if f.init and f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise CampaignError(f"{where}: the key '{f.name}' is needed and absent")
    try:
        return schema(**values)
    except ValueError as refusal:
        raise CampaignError(f"{where}: {refusal}") from refusal


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The member of `allowed` that `word` was probably meant to be, or None."""
    plain = {name.lower().replace("-", "_"): name for name in allowed}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), list(plain), 1, 0.6)
    return plain[close[0]] if close else None


def unknown_key(
    where: str, key: str, allowed: Iterable[str], hints: Mapping[str, str] | None = None
) -> CampaignError:
    """The sentence about a key that nobody knows: what it was meant to be, what is allowed."""
    allowed = tuple(allowed)
    meant = nearest(key, allowed)
    if hints and key in hints:
        hint = hints[key]
    else:
        hint = f"did you mean '{meant}'?" if meant else "no name here is like it."
    return CampaignError(f"{where}: unknown key '{key}'; {hint} Allowed: {', '.join(allowed)}")


def _read_value(value: Any, kind: Kind, where: str, key: str) -> Any:
    place = f"{where} {key}"
    if isinstance(value, Argument):
        place = value.where
        # A name such as 2024 is a text although TOML reads a number.
        value = value.text if kind.scalar is str and not isinstance(value.value, (str, list)) else value.value
    if value is None and kind.optional:
        return None
    if kind.is_list:
        if not isinstance(value, (list, tuple)) or kind.count not in (None, len(value)):
            raise CampaignError(f"{place}: expected {kind}, found {_found(value)}")
        return tuple(_read_scalar(element, kind, place, value) for element in value)
    return _read_scalar(value, kind, place, value)


def _read_scalar(value: Any, kind: Kind, place: str, whole: Any) -> Any:
    accepted = (int, float) if kind.scalar is float else kind.scalar
    is_kind = isinstance(value, accepted) and (kind.scalar is bool or not isinstance(value, bool))
    if not is_kind or (isinstance(value, float) and not math.isfinite(value)):
        raise CampaignError(f"{place}: expected {kind}, found {_found(whole)}")
    try:
        value = kind.scalar(value)
    except OverflowError:
        raise CampaignError(f"{place}: expected {kind}, found one too large for a float") from None
    if kind.choices and value not in kind.choices:
        meant = nearest(value, kind.choices) if isinstance(value, str) else None
        hint = f"; did you mean '{meant}'?" if meant else ""
        raise CampaignError(f"{place}: expected {kind}, found {_found(whole)}{hint}")
    return value


def _shown(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)


def _found(value: Any) -> str:
    """A value as its author wrote it, with its type where that is not plain to see."""
    if isinstance(value, Argument):
        value = value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text '{value}'"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_element(element) for element in value) + "]"
    if isinstance(value, Mapping):
        return "a section with keys"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    return "nothing" if value is None else f"the {type(value).__name__} {value}"


def _element(value: Any) -> str:
    plain = isinstance(value, (int, float, str)) and not isinstance(value, bool)
    return _shown(value) if plain else _found(value)
