"""Single numbers: rates, counts and flags."""

from __future__ import annotations

import math

import numpy as np

from fastbp.checks.arrays import FLOAT64, as_floats
from fastbp.checks.names import shown


def learning_rate(lr: object, name: str = "lr") -> float:
    """`lr` as a float; it must be finite and not negative."""
    return number(name, lr, low=0.0)


def number(name: str, value: object, *, low: float, below: float = math.inf) -> float:
    """`value` as a float with low <= value < below."""
    if type(value) is float and low <= value < below:  # the usual case, decided quickly; as in what follows
        return value
    try:
        if isinstance(value, (bool, str, bytes)) or getattr(value, "ndim", False):
            raise TypeError
        result = float(value)  # type: ignore[arg-type]
    except OverflowError:  # an int beyond all floats
        result = math.inf
    except Exception:  # also what __float__ of somebody else's class raises
        raise TypeError(f"{name} must be a number, got {shown(value)}") from None
    if not low <= result < below:
        expected = f"finite and at least {low:g}" if below == math.inf else f"in [{low:g}, {below:g})"
        raise ValueError(f"{name} is {result!r}, expected a number {expected}")
    return result


def number_or_one_each(name: str, value: object, inputs: int) -> float | list[float]:
    """`value` as a float, or as a list of one for each input; all must be finite."""
    array = as_floats(name, value, FLOAT64)
    if array.shape not in ((), (inputs,)):
        raise ValueError(
            f"{name} has shape {array.shape}, expected a number, or one for each of the {inputs} inputs"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity, expected finite numbers")
    result: float | list[float] = array.tolist()
    return result


def positive(name: str, value: object, otherwise: str) -> float:
    """`value` as a float that is finite and above 0; `otherwise`: what else might have been given."""
    try:
        result = number(name, value, low=0)
    except TypeError:
        raise TypeError(f"{name} must be a number or {otherwise}, got {shown(value)}") from None
    except ValueError:
        result = 0.0
    if result <= 0:
        raise ValueError(f"{name} is {shown(value)}, expected {otherwise} or a number finite and above 0")
    return result


def count(name: str, value: object, *, low: int = 1) -> int:
    """`value` as an int that is at least `low`."""
    if type(value) is int and value >= low:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    if value < low:
        raise ValueError(f"{name} is {value}, expected at least {low}")
    return int(value)


def flag(name: str, value: object) -> bool:
    """`value` as a bool: what is true by accident, like "no", is refused."""
    if type(value) is bool:
        return value
    if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)
