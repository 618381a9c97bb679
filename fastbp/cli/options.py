"""Options from the command line and from a TOML file, made of one table.

The table has groups of `Option`s. argparse's arguments are made of it (`add_to`), the file is read by it,
and it says which options go together: `gather` joins defaults, file and command line and refuses the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import difflib
import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastbp import checks

Read = Callable[[str], Any]


@dataclass(frozen=True)
class Option:
    """--name on the command line, name = ... in the file."""

    name: str
    read: Read | None  # the value from text, or argparse.ArgumentTypeError; None: it is on or off
    help: str
    default: Any = None
    metavar: str | None = None
    positional: bool = False
    many: bool = False  # values with commas between them, a list in the file
    only_for: tuple[str, tuple[str, ...]] | None = (
        None  # another option, and its values with which this is used
    )
    needs: str | None = None  # an option that has to be given as well
    not_with: str | None = None  # an option that says otherwise

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    def __str__(self) -> str:
        return self.metavar or self.name if self.positional else f"--{self.name}"

    def of_text(self, text: str) -> Any:
        assert self.read is not None
        return [self.read(part) for part in _parts(text)] if self.many else self.read(text)

    def of_toml(self, value: Any) -> Any:
        """The value in a file. ArgumentTypeError says what it is instead."""
        if self.read is None:
            if not isinstance(value, bool):
                raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")
            return value
        if not self.many or isinstance(value, str):
            return self.of_text(_plain(value))
        if isinstance(value, dict):
            value = [f"{key}={_plain(number)}" for key, number in value.items()]
        parts = value if isinstance(value, list) else [value]
        if not parts:
            raise argparse.ArgumentTypeError("the list is empty")
        return [self.read(_plain(part)) for part in parts]


Table = Mapping[str, Sequence[Option]]


def _parts(text: str) -> list[str]:
    """What stands between commas; one that is a part of a name is put in quotes, as in a CSV: a,"b, c"."""
    try:
        parts = next(csv.reader([text], skipinitialspace=True), [""])
    except csv.Error:
        parts = text.split(",")
    return [part.strip() for part in parts]


def _plain(value: Any) -> str:
    """A number or text of a TOML file as it would stand on the command line."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise argparse.ArgumentTypeError(f"{value!r} is neither a number nor text")
    return str(value)


def add_to(parser: argparse.ArgumentParser, table: Table) -> None:
    """Make an argument of each option. Those that are not given leave no attribute."""
    for title, options in table.items():
        group = parser.add_argument_group(title)
        for option in options:
            common: dict[str, Any] = {"default": argparse.SUPPRESS, "help": _help(option).replace("%", "%%")}
            if option.positional:
                group.add_argument(
                    option.attribute, nargs="?", type=option.of_text, metavar=option.metavar, **common
                )
            elif option.read is None:
                group.add_argument(str(option), action=argparse.BooleanOptionalAction, **common)
            else:
                group.add_argument(str(option), type=option.of_text, metavar=option.metavar, **common)


def _help(option: Option) -> str:
    default = option.default
    if default is None:
        return option.help
    if option.read is None:
        default = "yes" if default else "no"
    elif option.many:
        default = ",".join(map(str, default))
    return f"{option.help} (default: {default})"


def gather(table: Table, given: Mapping[str, Any], file: str | None) -> argparse.Namespace:
    """Every option's value: of the command line (`given`), else of the file, else its default.

    ValueError if the file cannot be read as TOML, has an unknown key or a value that does not fit, and if
    options do not go together. What stands on the command line takes the place of what it excludes in the
    file.
    """
    options = {option.name: option for group in table.values() for option in group}
    of_line = {name: given[o.attribute] for name, o in options.items() if o.attribute in given}
    of_file = {} if file is None else read_file(file, options)
    for name, other in _pairs(options.values()):
        for source in (of_line, of_file):
            if name in source and other in source:
                raise ValueError(f"{options[name]} and {options[other]} exclude each other: give one of them")
        for one, instead in ((name, other), (other, name)):
            if one in of_line:
                of_file.pop(instead, None)
    chosen = of_file | of_line
    values = {name: chosen.get(name, option.default) for name, option in options.items()}
    for name in chosen:
        if values[name] is not False:
            _check(options[name], values)
    return argparse.Namespace(**{options[name].attribute: value for name, value in values.items()})


def _pairs(options: Iterable[Option]) -> list[tuple[str, str]]:
    return [(option.name, option.not_with) for option in options if option.not_with is not None]


def _check(option: Option, values: Mapping[str, Any]) -> None:
    if option.only_for is not None:
        other, fitting = option.only_for
        if values[other] not in fitting:
            found = "which is not given" if values[other] is None else f"got {values[other]}"
            raise ValueError(f"{option} is for --{other} {' or '.join(fitting)}, {found}")
    if option.needs is not None and not values[option.needs]:
        raise ValueError(f"{option} needs --{option.needs} as well")


def read_file(path: str, options: Mapping[str, Option]) -> dict[str, Any]:
    """The values in a TOML file by the options' names."""
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except ValueError as error:
        raise ValueError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply, options are not") from None
    values = {}
    for key, value in content.items():
        if key not in options:
            near = difflib.get_close_matches(key, options, n=3, cutoff=0.0)
            raise ValueError(f"{path}: unknown option {key!r}; the nearest known ones are {', '.join(near)}")
        try:
            values[key] = options[key].of_toml(value)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"{path}: {key}: {error}") from None
    return values


# ---- reading values -----------------------------------------------------------------------------------


def _number(kind: Callable[[str], Any], ok: Callable[[Any], bool], expected: str) -> Read:
    def read(text: str) -> Any:
        with contextlib.suppress(ValueError, OverflowError):
            value = kind(text)
            if math.isfinite(value) and ok(value):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")

    return read


positive_int = _number(int, lambda value: value > 0, "a positive whole number")
folds = _number(int, lambda value: value > 1, "a whole number from 2 up")
natural = _number(int, lambda value: value >= 0, "a whole number from 0 up")
positive = _number(float, lambda value: value > 0, "a positive number")
non_negative = _number(float, lambda value: value >= 0, "a number from 0 up")
share = _number(float, lambda value: 0 <= value < 1, "a share from 0 up to, but not including, 1")


def text(value: str) -> str:
    if not value:
        raise argparse.ArgumentTypeError("a name is expected, got nothing")
    return value


def checked(check: Callable[[str], str]) -> Read:
    """What `check` makes of the text, or why it raises ValueError."""

    def read(value: str) -> str:
        try:
            return check(value)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def one_of(kind: str, known: Iterable[str]) -> Read:
    """One of these names, in capitals or not; an error lists them, the nearest first."""
    names = list(known)
    folded = {name.casefold(): name for name in names}
    return checked(lambda value: folded.get(value.casefold()) or checks.known_name(kind, value, names))


def pair(value: str) -> tuple[str, float]:
    """NAME=NUMBER, number from 0 up; a name may hold a =."""
    name, equals, number = value.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{value!r} is not NAME=NUMBER")
    return name, non_negative(number)
