"""`check_backward`: anybody's backward function against differences of their own forward function and loss.

Where an array is wrong, `backward_mistakes` looks for the mistake that would have made it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.inspection import backward_mistakes
from fastbp.inspection.backward_mistakes import ArrayCheck, Point

Array = NDArray[Any]
Loss = Callable[[Array, Array], float]
# forward as a function of X and the list of parameters that always returns a tuple.
Compute = Callable[[Array, list[Array]], tuple[Array, ...]]

TOLERANCE = 1e-5
# Of the differences: the square is the truncation error, rounding of the loss divided by it the other one.
# The smaller ones are for entries that disagree: a kink within the step may lie outside these.
STEPS = (1e-5, 1e-6, 1e-7)
MAX_ENTRIES = 400  # of one array that are compared, spread evenly; each costs two forward passes
# The check is made at a point near the one given: there no ReLU stands exactly at 0 (as it does for an input
# row of zeros and biases of zeros), and no gradient is 0 because all weights are.
NOISE = 0.02
# One point after another until all agrees: a mistake is one everywhere, a kink next to a point is not.
SEEDS = (0, 1)


@dataclass
class BackwardCheck:
    """`arrays`: in the order of the parameters. `notes`: what is wrong with no array in particular."""

    arrays: list[ArrayCheck]
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.notes and all(array.passed for array in self.arrays)

    @property
    def wrong(self) -> list[str]:
        """The names of the arrays that are wrong."""
        return [array.name for array in self.arrays if not array.passed]

    def __str__(self) -> str:
        lines = ["array  relative error  entries"]
        for a in self.arrays:
            state = "  (0 here, whatever is computed)" if a.silent else "" if a.passed else "  WRONG"
            lines.append(f"{a.name:5}  {a.error:14.1e}  {a.entries:7}{state}")
        lines += [f"{a.name}: {mistake}" for a in self.arrays for mistake in a.mistakes]
        return "\n".join([*lines, *self.notes, "passed" if self.passed else "FAILED"])


def half_squared_error(y_pred: Array, y_true: Array) -> float:
    """1/2 of the sum of squared errors over batch and outputs, which the tutorial's network minimises."""
    return float(0.5 * np.sum((y_pred - y_true) ** 2))


def check_backward(
    forward: Callable[..., Any],
    backward: Callable[..., Sequence[ArrayLike]],
    X: ArrayLike,
    y_true: ArrayLike,
    params: Sequence[ArrayLike],
    *,
    loss: Loss = half_squared_error,
) -> BackwardCheck:
    """Compare a backward function with central differences of a forward function's loss, all in float64.

    Parameters
    ----------
    forward : called as forward(X, *params), or forward(X, params) if it has two arguments and there are more
        parameters. Returns y_pred, or a tuple that ends with it, such as (z1, a1, z2, y_pred).
    backward : returns one gradient for each parameter, in their order. Its arguments are recognised by their
        names: X, y_true (or y, Y, target), the names of forward's parameters (W1, b1, ...), what forward
        returns (z1, a1, z2, ..., y_pred), and `results` and `params` for all of these as a tuple and a list.
    X, y_true : (batch, inputs) and (batch, outputs): a few rows are enough.
    params : the parameters. They are copied: nothing of yours is modified. The comparison is made close to
        them, not exactly there, since at a ReLU's kink there is no derivative to compare with.
    loss : loss(y_pred, y_true) -> float; the default is half the sum of squared errors, 1/2 sum (y_pred -
        y_true)², which is not divided by the batch size.

    Returns
    -------
    BackwardCheck : print it. `passed`, `wrong` (["dW1", ...]), and for each array its error and the mistake
        that explains it, where one does: a missing derivative of an activation, no sum over the batch, a
        division by the batch size, a transposed or misplaced array, weights used after their update, ...

    Raises
    ------
    TypeError, ValueError : if the functions cannot be called in this way; if forward computes in float32, or
        gives another result when it is called again (dropout).
    """
    X, y_true = np.array(X, np.float64), np.array(y_true, np.float64)
    exact = [np.array(p, np.float64) for p in params]
    names, compute = _parameter_names(forward, len(exact)), _caller(forward, len(exact))
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        moved = [_moved(p, rng) for p in exact]
        results = compute(X, moved)
        _require_usable(results[-1], compute(X, moved)[-1])
        if loss is half_squared_error:
            _require_same_shape(y_true, results[-1])
        point = Point(X, y_true, moved, names, results, loss)
        gradients, notes = _gradients(backward, point)
        arrays = [_compare(compute, point, i, gradient) for i, gradient in enumerate(gradients)]
        if all(array.passed for array in arrays):
            break
    else:
        backward_mistakes.explain(point, gradients, arrays)
    return BackwardCheck(arrays, notes)


def _moved(param: Array, rng: np.random.Generator) -> Array:
    size = float(np.sqrt(np.mean(np.square(param)))) if param.size else 0.0
    moved: Array = param + NOISE * max(size, 1.0) * rng.standard_normal(param.shape)
    return moved


# ---- calling functions of somebody else ----------------------------------------------------------------


def _positional(function: Callable[..., Any]) -> list[str] | None:
    """The names of the arguments that have no default; None where they cannot be told (*args, built in)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]


def _parameter_names(forward: Callable[..., Any], count: int) -> list[str]:
    names = _positional(forward)
    if names is not None and len(names) == count + 1:
        return names[1:]
    return [f"{'Wb'[i % 2]}{i // 2 + 1}" for i in range(count)]


def _caller(forward: Callable[..., Any], count: int) -> Compute:
    names = _positional(forward)
    in_one = names is not None and len(names) == 2 and count != 1
    if names is not None and not in_one and len(names) != count + 1:
        raise TypeError(
            f"forward has the arguments ({', '.join(names)}), expected X and one for each of the {count} "
            "params, or X and a list of them"
        )

    def compute(X: Array, params: list[Array]) -> tuple[Array, ...]:
        returned = forward(X, params) if in_one else forward(X, *params)
        return returned if isinstance(returned, tuple) else (returned,)

    return compute


def _require_usable(y_pred: Any, again: Any) -> None:
    if not isinstance(y_pred, np.ndarray):
        raise TypeError(
            f"forward must return y_pred, or a tuple that ends with it, got {type(y_pred).__name__}"
        )
    if y_pred.dtype != np.float64:
        raise ValueError(
            f"forward returned {y_pred.dtype} for float64 arguments: differences of the loss need float64; "
            "let it compute in the dtype of its arguments"
        )
    if not np.isfinite(y_pred).all():
        raise ValueError("forward returned NaN or infinity: use smaller parameters or inputs")
    if not np.array_equal(y_pred, again):
        raise ValueError(
            "forward gives different results for the same arguments: switch dropout or noise off"
        )


def _require_same_shape(y_true: Array, y_pred: Array) -> None:
    """Otherwise the difference would be broadcast: (batch, 1) - (batch,) is (batch, batch)."""
    if y_true.shape != y_pred.shape:
        hint = "; y_true.reshape(-1, 1) makes a column of it" if y_pred.shape == (*y_true.shape, 1) else ""
        raise ValueError(
            f"y_true has shape {y_true.shape}, the y_pred that forward returned {y_pred.shape}: they must be "
            f"equal{hint}"
        )


def _gradients(backward: Callable[..., Any], point: Point) -> tuple[list[Any], list[str]]:
    """What backward returns for copies of everything, and notes on what it changed."""
    known = point.known_names()
    asked = _positional(backward)
    if asked is None:
        raise TypeError("backward must name its arguments, such as backward(X, y_true, z1, a1, y_pred, W2)")
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise TypeError(
            f"backward has an argument {unknown[0]!r}, which is none of {', '.join(known)}: rename it, or "
            "pass a lambda with these names that calls your function"
        )
    given = {name: _copied(known[name]) for name in asked}
    returned = backward(**given)
    if not isinstance(returned, (tuple, list)) or len(returned) != len(point.params):
        got = f"{len(returned)} values" if isinstance(returned, (tuple, list)) else type(returned).__name__
        expected = ", ".join(f"d{name}" for name in point.names)
        raise ValueError(f"backward returned {got}, expected one gradient for each parameter: ({expected})")
    notes = [
        f"backward changes {name} in place: it must leave its arguments as they are"
        for name in asked
        if not _same(given[name], known[name])
    ]
    return list(returned), notes


def _copied(value: Any) -> Any:
    return type(value)(v.copy() for v in value) if isinstance(value, (list, tuple)) else value.copy()


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (list, tuple)):
        return all(map(np.array_equal, a, b))
    return bool(np.array_equal(a, b))


# ---- comparing -----------------------------------------------------------------------------------------


def _compare(compute: Compute, point: Point, i: int, gradient: Any) -> ArrayCheck:
    """The check of one array; its `mistakes` are empty if it is right, else a plain statement of that."""
    name, expected = f"d{point.names[i]}", point.params[i].shape
    if gradient is None:
        return ArrayCheck(name, np.inf, 0, ["is None"])
    values = np.asarray(gradient, np.float64)
    if values.shape != expected:
        return ArrayCheck(name, np.inf, 0, [f"has shape {values.shape}, expected {expected}"])
    size = values.size
    entries = np.unique(np.linspace(0, size - 1, min(MAX_ENTRIES, size)).astype(int))
    if not np.isfinite(values).all():
        return ArrayCheck(name, np.inf, len(entries), ["holds NaN or infinity"])
    found = values.reshape(-1)[entries]
    numeric = _central_differences(compute, point, i, entries, STEPS[0])
    # What differences of the loss can resolve: below, both are 0 but for rounding.
    loss = max(1.0, abs(float(point.loss(point.results[-1], point.y_true))))
    resolvable = np.finfo(np.float64).eps * loss / STEPS[0] / TOLERANCE
    scale = max(float(np.abs(numeric).max()), float(np.abs(found).max()), resolvable)
    for step in STEPS[1:]:
        apart = np.flatnonzero(np.abs(found - numeric) > TOLERANCE * scale)
        if not apart.size:
            break
        nearer = _central_differences(compute, point, i, entries[apart], step)
        closer = np.abs(found[apart] - nearer) < np.abs(found[apart] - numeric[apart])
        numeric[apart[closer]] = nearer[closer]
    difference = np.abs(found - numeric)
    error = float(difference.max()) / scale
    if error <= TOLERANCE:
        return ArrayCheck(name, error, len(entries), silent=scale == resolvable)
    worst = int(difference.argmax())
    index = ", ".join(map(str, np.unravel_index(int(entries[worst]), expected)))
    plain = f"{name}[{index}] is {found[worst]:.6g}, differences of the loss give {numeric[worst]:.6g}"
    return ArrayCheck(name, error, len(entries), [plain])


def _central_differences(compute: Compute, point: Point, i: int, entries: Array, step: float) -> Array:
    """The loss's derivatives with respect to these entries (flat indices) of parameter i."""
    params = [p.copy() for p in point.params]
    flat = params[i].reshape(-1)
    derivatives = np.empty(len(entries))
    for k, entry in enumerate(entries):
        value, losses = flat[entry], []
        for changed in (value + step, value - step):
            flat[entry] = changed
            losses.append(float(point.loss(compute(point.X, params)[-1], point.y_true)))
        flat[entry] = value
        derivatives[k] = (losses[0] - losses[1]) / (2 * step)
    return derivatives
