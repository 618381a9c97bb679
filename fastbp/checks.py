"""Every check of what a caller passes in, with the error messages.

Kernels and the reference's equations assume clean input; everything that could be wrong is refused here,
before anything is modified. A message names the argument, what was given and what was expected.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)

# Numbers of an array that are looked at one by one, with temporary arrays of this size.
LOOKED_AT_ONCE = 1 << 20


def as_numbers(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """`value` as an ndarray of real numbers, which can be converted to `dtype`."""
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array of numbers: {error}") from None
    if array.dtype != dtype and array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers ({dtype})")
    return array


def as_floats(name: str, value: object, dtype: np.dtype[Any]) -> Array:
    """`value` as an ndarray of `dtype`: itself where it is one already, else a converted copy."""
    array = as_numbers(name, value, dtype)
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):  # what overflows becomes infinite, which is reported by require_finite
        return array.astype(dtype)


def common_dtype(arguments: Iterable[tuple[str, object]]) -> np.dtype[Any]:
    """The one floating dtype of the arguments that are arrays of floats; float64 if there is none.

    Lists and integer arrays have no say: they are converted to what the others are.
    """
    names: dict[np.dtype[Any], str] = {}
    for name, value in arguments:
        dtype = getattr(value, "dtype", None)
        if not isinstance(dtype, np.dtype):
            continue
        if dtype.kind not in "biuf":
            raise TypeError(f"{name} has dtype {dtype}, expected float32 or float64")
        if dtype.kind == "f":
            dtype = dtype.newbyteorder("=")
            if dtype not in (FLOAT32, FLOAT64):
                raise TypeError(f"{name} has dtype {dtype}, expected float32 or float64")
            names.setdefault(dtype, name)
    if len(names) > 1:
        both = " and ".join(f"{name} is {dtype}" for dtype, name in names.items())
        raise TypeError(f"{both}: all must have the same dtype, float32 or float64")
    return next(iter(names), FLOAT64)


def require_finite(name: str, array: Array) -> None:
    """Raise ValueError if the array holds NaN or infinity.

    The sum of finite numbers is finite unless it overflows, and a sum needs no temporary array: only where
    it is not finite is every element looked at, in blocks, since the array may be larger than memory.
    """
    with np.errstate(all="ignore"):
        if math.isfinite(array.sum()):
            return
    bad, first = 0, (0,) * array.ndim
    rows = max(1, LOOKED_AT_ONCE * len(array) // array.size)
    for start in range(0, len(array), rows):
        here = np.argwhere(~np.isfinite(array[start : start + rows]))
        if len(here) and not bad:
            first = (start + int(here[0][0]), *map(int, here[0][1:]))
        bad += len(here)
    if bad:
        index = ", ".join(map(str, first))
        raise ValueError(
            f"{name} holds NaN or infinity ({bad} of {array.size} values, the first is "
            f"{name}[{index}] = {array[first]}); check_finite=False skips this check"
        )


def require_matrix(name: str, array: Array, meaning: str) -> None:
    """Raise ValueError unless the array has two dimensions, as `meaning` says, and is not empty."""
    if array.ndim != 2:
        hint = ""
        if array.ndim == 1:
            hint = f"; for a single row use {name}.reshape(1, -1), for a single column {name}.reshape(-1, 1)"
        raise ValueError(f"{name} has shape {array.shape}, expected two dimensions {meaning}{hint}")
    if array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape} and is empty, expected {meaning} with at least one row"
        )


def require_updatable(name: str, array: object) -> None:
    """Raise unless `array` is a writable float32 or float64 ndarray, which can be updated in place."""
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"{name} is updated in place and must be a NumPy array, got {type(array).__name__}: nothing "
            "of an update would be seen outside"
        )
    if array.dtype not in (FLOAT32, FLOAT64):
        raise TypeError(
            f"{name} has dtype {array.dtype}, but is updated in place and must be float32 or float64"
        )
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only, but would be updated in place")


def learning_rate(lr: object, name: str = "lr") -> float:
    """`lr` as a float; it must be finite and not negative."""
    return number(name, lr, low=0.0)


def number(name: str, value: object, *, low: float, below: float = math.inf) -> float:
    """`value` as a float with low <= value < below."""
    try:
        if isinstance(value, (bool, str, bytes)):
            raise TypeError
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    except OverflowError:  # an int beyond all floats
        result = math.inf
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
        raise TypeError(f"{name} must be a number or {otherwise}, got {value!r}") from None
    except ValueError:
        result = 0.0
    if result <= 0:
        raise ValueError(f"{name} is {value!r}, expected {otherwise} or a number finite and above 0")
    return result


def count(name: str, value: object, *, low: int = 1) -> int:
    """`value` as an int that is at least `low`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < low:
        raise ValueError(f"{name} is {value}, expected at least {low}")
    return int(value)


def flag(name: str, value: object) -> bool:
    """`value` as a bool: what is true by accident, like "no", is refused."""
    if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)


def known_name(kind: str, name: object, known: Iterable[str]) -> str:
    """`name`, if it is one of `known`; else ValueError that lists the known names, the nearest first."""
    names = list(known)
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be a name ({', '.join(names)}), got {name!r}")
    if name in names:
        return name
    nearest_first = ", ".join(map(repr, _nearest_first(name, names)))
    raise ValueError(f"unknown {kind} {name!r}, expected one of {nearest_first}")


def known_options(of: type, options: Collection[str]) -> None:
    """TypeError for a name that the class's constructor has no argument of; lists those it has."""
    if not options:  # the usual case: to look at a signature takes time
        return
    parameters = inspect.signature(of).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in options:
        if name not in parameters:
            nearest_first = ", ".join(_nearest_first(name, list(parameters)))
            raise TypeError(f"{of.__name__} has no option {name!r}, expected one of {nearest_first}")


def _nearest_first(name: str, known: Sequence[str]) -> list[str]:
    likeness = {n: difflib.SequenceMatcher(None, n, name.lower()).ratio() for n in known}
    return sorted(known, key=lambda n: -likeness[n])


# ---- the two-layer functions --------------------------------------------------------------------------


def _require_parameters(W1: Array, b1: Array, W2: Array, b2: Array) -> None:
    require_matrix("W1", W1, "(inputs, hidden)")
    require_matrix("W2", W2, "(hidden, outputs)")
    if b1.shape != (W1.shape[1],):
        raise ValueError(
            f"b1 has shape {b1.shape}, W1 has {W1.shape[1]} columns: b1 must be ({W1.shape[1]},)"
        )
    if W2.shape[0] != W1.shape[1]:
        raise ValueError(
            f"W2 has {W2.shape[0]} rows, W1 has {W1.shape[1]} columns: W2 must be ({W1.shape[1]}, outputs)"
        )
    if b2.shape != (W2.shape[1],):
        raise ValueError(
            f"b2 has shape {b2.shape}, W2 has {W2.shape[1]} columns: b2 must be ({W2.shape[1]},)"
        )


def require_inputs(X: Array, weights_name: str, fan_in: int) -> None:
    """X must be (batch, fan_in), with at least one row."""
    require_matrix("X", X, f"(batch, {fan_in})")
    if X.shape[1] != fan_in:
        raise ValueError(
            f"X has {X.shape[1]} columns, {weights_name} has {fan_in} rows: X must be (batch, {fan_in})"
        )


def require_targets(name: str, Y: Array, rows: int, outputs: int, *, labels: bool = False) -> None:
    """Y must be (rows, outputs). labels: or class labels (rows,), which are not looked for here."""
    if Y.shape == (rows, outputs):
        return
    hint = f"; or ({rows},), a class label 0..{outputs - 1} for each row" if labels else ""
    if Y.ndim == 1 and outputs == 1:
        hint = f"; {name}.reshape(-1, 1) makes a column of it"
    elif Y.ndim == 1 and not labels:
        hint = "; for class labels use output='softmax' and loss='categorical_crossentropy'"
    raise ValueError(
        f"{name} has shape {Y.shape}, expected ({rows}, {outputs}): one row for each of the {rows} rows of X "
        f"and one column for each of the {outputs} outputs{hint}"
    )


def forward_arguments(
    X: object, W1: object, b1: object, W2: object, b2: object, check_finite: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """The arguments of `forward` as arrays of one dtype, that of the parameters."""
    parameters = (("W1", W1), ("b1", b1), ("W2", W2), ("b2", b2))
    dtype = common_dtype(parameters)
    _W1, _b1, _W2, _b2 = (as_floats(name, value, dtype) for name, value in parameters)
    _require_parameters(_W1, _b1, _W2, _b2)
    _X = as_floats("X", X, dtype)
    require_inputs(_X, "W1", _W1.shape[0])
    if check_finite:
        require_finite("X", _X)
    return _X, _W1, _b1, _W2, _b2


def backward_arguments(
    X: object, y_true: object, z1: object, a1: object, y_pred: object, W2: object, check_finite: bool
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """The arguments of `backward` as arrays of one dtype, that of z1, a1, y_pred and W2."""
    computed = (("z1", z1), ("a1", a1), ("y_pred", y_pred), ("W2", W2))
    dtype = common_dtype(computed)
    _z1, _a1, _y_pred, _W2 = (as_floats(name, value, dtype) for name, value in computed)
    _X, _y_true = as_floats("X", X, dtype), as_floats("y_true", y_true, dtype)
    require_matrix("X", _X, "(batch, inputs)")
    require_matrix("W2", _W2, "(hidden, outputs)")
    rows, (hidden, outputs) = _X.shape[0], _W2.shape
    for name, array in (("z1", _z1), ("a1", _a1)):
        if array.shape != (rows, hidden):
            raise ValueError(
                f"{name} has shape {array.shape}, X has {rows} rows and W2 has {hidden} rows: "
                f"{name} must be ({rows}, {hidden})"
            )
    if _y_pred.shape != (rows, outputs):
        raise ValueError(
            f"y_pred has shape {_y_pred.shape}, X has {rows} rows and W2 has {outputs} columns: "
            f"y_pred must be ({rows}, {outputs})"
        )
    require_targets("y_true", _y_true, rows, outputs)
    if check_finite:
        require_finite("X", _X)
        require_finite("y_true", _y_true)
    return _X, _y_true, _z1, _a1, _y_pred, _W2


def update_arguments(
    params: object, grads: object, lr: object, check_finite: bool
) -> tuple[list[Array], list[Array], float]:
    """The arguments of `sgd_update`: the caller's own parameter arrays, gradients of the same dtype, lr."""
    for name, value in (("params", params), ("grads", grads)):
        if not isinstance(value, Sequence):
            raise TypeError(f"{name} must be a list or tuple of arrays, got {type(value).__name__}")
    assert isinstance(params, Sequence) and isinstance(grads, Sequence)
    if len(params) != len(grads):
        raise ValueError(f"{len(params)} params, but {len(grads)} grads: one gradient for each is needed")
    rate = learning_rate(lr)
    arrays: list[Array] = []
    for i, (param, grad) in enumerate(zip(params, grads, strict=True)):
        require_updatable(f"params[{i}]", param)
        common_dtype(((f"params[{i}]", param), (f"grads[{i}]", grad)))
        array = as_floats(f"grads[{i}]", grad, param.dtype)
        if array.shape != param.shape:
            raise ValueError(
                f"grads[{i}] has shape {array.shape}, params[{i}] has {param.shape}: they must be equal"
            )
        if check_finite:
            require_finite(f"grads[{i}]", array)
        arrays.append(array)
    common_dtype((f"params[{i}]", param) for i, param in enumerate(params))
    return list(params), arrays, rate


def train_step_arguments(
    X: object,
    y_true: object,
    W1: object,
    b1: object,
    W2: object,
    b2: object,
    lr: object,
    check_finite: bool,
) -> tuple[Array, Array, Array, Array, Array, Array, float]:
    """The arguments of `train_step`; X and y_true in the dtype of the parameters, these the caller's own."""
    for name, value in (("W1", W1), ("b1", b1), ("W2", W2), ("b2", b2)):
        require_updatable(name, value)
    rate = learning_rate(lr)
    _X, _W1, _b1, _W2, _b2 = forward_arguments(X, W1, b1, W2, b2, check_finite)
    _y_true = as_floats("y_true", y_true, _W1.dtype)
    require_targets("y_true", _y_true, _X.shape[0], _W2.shape[1])
    if check_finite:
        require_finite("y_true", _y_true)
    return _X, _y_true, _W1, _b1, _W2, _b2, rate
