"""The arguments of the two-layer functions: `forward`, `backward`, `sgd_update` and `train_step`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.checks.arrays import (
    as_floats,
    common_dtype,
    require_finite,
    require_inputs,
    require_matrix,
    require_targets,
    require_updatable,
)
from fastbp.checks.scalars import flag, learning_rate
from fastbp.checks.warning import warn
from fastbp.formulas.two_layer import FORWARD_TOLERANCE

Array = NDArray[Any]


def _require_parameters(W1: Array, b1: Array, W2: Array, b2: Array) -> None:
    require_matrix("W1", W1, "(inputs, hidden)")
    require_matrix("W2", W2, "(hidden, outputs)")
    hidden = W1.shape[1]
    # Where b1 and W2 agree on a number of hidden units that W1 has as rows, W1 is the one that is wrong.
    if b1.size == W1.shape[0] != hidden and W1.shape[0] in W2.shape:
        raise ValueError(
            f"W1 is {W1.shape}: it must be (inputs, hidden) = {W1.shape[::-1]}; transposed? "
            f"(b1 has {b1.size} values, one for each hidden unit)"
        )
    if W2.shape[1] == hidden != W2.shape[0] and b2.size == W2.shape[0]:
        raise ValueError(
            f"W2 is {W2.shape}: it must be (hidden, outputs) = {W2.shape[::-1]}; transposed? "
            f"(W1 has {hidden} columns, one for each hidden unit)"
        )
    if b1.shape != (hidden,):
        raise ValueError(
            f"b1 has shape {b1.shape}, W1 has {hidden} columns: b1 must be ({hidden},)"
            f"{_flattening('b1', b1, hidden)}"
        )
    if W2.shape[0] != hidden:
        raise ValueError(
            f"W2 has {W2.shape[0]} rows, W1 has {hidden} columns: W2 must be ({hidden}, outputs)"
        )
    if b2.shape != (W2.shape[1],):
        outputs = W2.shape[1]
        raise ValueError(
            f"b2 has shape {b2.shape}, W2 has {outputs} columns: b2 must be ({outputs},)"
            f"{_flattening('b2', b2, outputs)}"
        )


def _flattening(name: str, b: Array, units: int) -> str:
    """How a bias that is a row or a column becomes what is expected, if it is one."""
    return f"; {name}.reshape(-1) makes it so" if b.ndim == 2 and b.size == units else ""


def _require_of_forward(z1: Array, a1: Array, y_pred: Array) -> None:
    """Refuse what `forward` cannot have returned, by a look at the first row. NaN may have been returned."""
    expected = np.maximum(0, z1[0])
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero(np.abs(a1[0] - expected) > FORWARD_TOLERANCE * (1 + np.abs(z1[0])))
        outside = np.flatnonzero((y_pred[0] < 0) | (y_pred[0] > 1))
    if wrong.size:
        j = int(wrong[0])
        raise ValueError(
            f"a1[0, {j}] is {a1[0, j]:g}, but max(0, z1[0, {j}]) is {expected[j]:g}: z1 and a1 must be what "
            "forward returned for this X; check_finite=False skips this check"
        )
    if outside.size:
        j = int(outside[0])
        raise ValueError(
            f"y_pred[0, {j}] is {y_pred[0, j]:g}, outside [0, 1]: y_pred must be what forward returned, the "
            "Sigmoid of z2 (not z2 itself); check_finite=False skips this check"
        )


def _warn_if_all_zero(names: str, matrices: Sequence[Array]) -> None:
    """Warn whoever called the function that called the check, if all weights of two layers or more are 0."""
    if len(matrices) < 2 or any(W.size == 0 or W.item(0) or W.any() for W in matrices):
        return
    warn(
        f"{names} are all zero: all hidden units compute the same and get the same gradient, so they never "
        "learn to differ (symmetry); start from small random weights"
    )


def _how_to_fit(grad: Array, param: Array) -> str:
    """What makes a gradient of this shape one of its parameter's, for the usual mistakes."""
    if param.ndim == 1 and grad.ndim == 2 and grad.shape[1] == len(param):
        return "; sum over the batch: sum(axis=0)"
    if param.ndim == 2 and grad.shape == param.shape[::-1]:
        return "; transposed?"
    return ""


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
    if flag("check_finite", check_finite):
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
    if flag("check_finite", check_finite):
        require_finite("X", _X)
        require_finite("y_true", _y_true)
        _require_of_forward(_z1, _a1, _y_pred)
    return _X, _y_true, _z1, _a1, _y_pred, _W2


def update_arguments(
    params: object, grads: object, lr: object, check_finite: bool
) -> tuple[list[Array], list[Array], float]:
    """The arguments of `sgd_update`: the caller's own parameter arrays, gradients of the same dtype, lr."""
    if not isinstance(params, Sequence) or isinstance(params, (str, bytes)):
        raise TypeError(f"params must be a list or tuple of arrays, got {type(params).__name__}")
    if not isinstance(grads, Sequence) or isinstance(grads, (str, bytes)):
        raise TypeError(f"grads must be a list or tuple of arrays, got {type(grads).__name__}")
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
                f"{_how_to_fit(array, param)}"
            )
        if flag("check_finite", check_finite):
            require_finite(f"grads[{i}]", array)
        arrays.append(array)
    common_dtype((f"params[{i}]", param) for i, param in enumerate(params))
    if flag("check_finite", check_finite):
        _warn_if_all_zero("the matrices of params", [param for param in params if param.ndim == 2])
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
    if flag("check_finite", check_finite):
        require_finite("y_true", _y_true)
        _warn_if_all_zero("W1 and W2", (_W1, _W2))
    return _X, _y_true, _W1, _b1, _W2, _b2, rate
