"""Names: one out of those that are known, or an answer that lists the nearest first."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable, Sequence
from functools import cache

LONGEST_SHOWN = 100  # characters of what was given


def shown(value: object) -> str:
    """What was given, on one line of an error message."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # an object that cannot even say what it is
        text = f"a {type(value).__name__}"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def known_name(kind: str, name: object, known: Iterable[str]) -> str:
    """`name`, if it is one of `known`; else ValueError that lists the known names, the nearest first."""
    names = list(known)
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be a name ({', '.join(names)}), got {shown(name)}")
    if name in names:
        return name
    nearest_first = ", ".join(map(repr, _nearest_first(name, names)))
    raise ValueError(f"unknown {kind} {name!r}, expected one of {nearest_first}")


def known_options(of: type, options: Collection[str]) -> None:
    """TypeError for a name that the class's constructor has no argument of; lists those it has."""
    if not options:
        return
    parameters = _signature(of).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            nearest_first = ", ".join(_nearest_first(name, list(parameters)))
            raise TypeError(f"{of.__name__} has no option {name!r}, expected one of {nearest_first}")


@cache  # to look at a signature takes time
def _signature(of: type) -> inspect.Signature:
    return inspect.signature(of)


def _nearest_first(name: str, known: Sequence[str]) -> list[str]:
    likeness = {n: difflib.SequenceMatcher(None, n, name.lower()).ratio() for n in known}
    return sorted(known, key=lambda n: -likeness[n])
