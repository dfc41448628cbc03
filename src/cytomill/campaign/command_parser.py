"""Argument parsers whose help states every default, and whose refusals name what was probably meant."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from cytomill.campaign.settings import nearest
from cytomill.runtime.launcher import launched_first


class _Help(argparse.HelpFormatter):
    """Help that ends with the default, where there is one and the text does not say it itself."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        if not text or "default" in text or default in (None, (), [], argparse.SUPPRESS):
            return text
        if isinstance(default, bool) or not action.option_strings:
            return text
        if isinstance(default, tuple):
            default = " ".join(map(str, default))
        return f"{text} (default: {default})"


class CommandParser(argparse.ArgumentParser):
    """A parser whose refusals name the nearest command or flag; a command without a help text is not named.

    Subparsers are of the same class. Of several ranks the first speaks for all.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Help, **options})

    def add_commands(self, dest: str, metavar: str) -> Callable[..., CommandParser]:
        """Give this parser subparsers; returns what adds one: ``(name, text)``, the text is its help too."""
        commands = self.add_subparsers(dest=dest, required=True, metavar=metavar)

        def add(name: str, text: str | None = None, **options: Any) -> CommandParser:
            if text is None:
                return commands.add_parser(name, **options)
            description = f"{text[0].upper()}{text[1:]}."
            return commands.add_parser(name, help=text, description=description, **options)

        return add

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> argparse.Namespace:
        """Parse `args`; an unknown flag ends the program with the flag that was probably meant."""
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            parser = self
            while (chosen := _chosen(parser, options)) is not None:
                parser = chosen
            flag = next((word for word in unknown if word.startswith("-")), "")
            if not flag:
                parser.error(f"one argument too many: {unknown[0]!r}")
            parser.refuse("flag", flag.partition("=")[0], parser._option_string_actions)
        return options

    def refuse(self, kind: str, word: str, known: Iterable[str]) -> NoReturn:
        """End the program: `word` is not one of the `known`."""
        known = [name for name in known if name.startswith("--") or kind != "flag"]
        meant = nearest(word, known)
        hint = f"; did you mean '{meant}'?" if meant else "."
        self.error(f"unknown {kind} '{word}'{hint} Known: {', '.join(known)}")

    def _print_message(self, message: str, file: Any = None) -> None:
        if launched_first():
            super()._print_message(message, file)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            shown = [choice.dest for choice in action._choices_actions]
            self.refuse(str(action.dest), str(value), shown)
        super()._check_value(action, value)


def _chosen(parser: CommandParser, options: argparse.Namespace) -> CommandParser | None:
    """The subparser that `options` were parsed by, if `parser` has any."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices[getattr(options, action.dest)]
    return None
