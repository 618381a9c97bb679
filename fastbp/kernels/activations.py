"""Functions of every number by a formula's name: exp, every activation and its derivative; softmax, and the
output's error."""

from __future__ import annotations

from typing import Any

from fastbp import activations
from fastbp.engine.compile.uncounted import counted, uncounted
from fastbp.engine.entries.flat import LIGHT, NO_SCALAR
from fastbp.kernels.arguments import (
    ShapeError,
    address,
    alike,
    check,
    kernel,
    result,
    span,
    unlike_overlap,
)
from fastbp.kernels.linking import run
from fastbp.kernels.numbers import OF_EXP, SIMPLE, number_by_number

# What a byte of softmax takes one core, see numbers.py.
OF_SOFTMAX = 320


def _cost_of(formula: str) -> int:
    """Of a byte, see numbers.py."""
    return SIMPLE if formula in LIGHT else OF_EXP


def _value(name: str, formula: str, numpy: str) -> Any:
    cost = _cost_of(name)

    def value(z: Any, out: Any = None) -> Any:
        check("z", z, 0, z)
        z, out = uncounted(z), uncounted(out)
        a = result(out, z.shape, z)
        unlike_overlap(span(out), span(z))
        x = address(z)
        run(name, z, z.nbytes * cost >> 10, (x, x, x, address(a), z.size, NO_SCALAR))
        return counted(a)

    value.__name__ = value.__qualname__ = name
    value.__doc__ = f"""{formula}

    Number by number. z: C-ordered, float32 or float64, of any shape. out: of the same shape, for the result;
    it may be z. Returns out, or a new array.

    Raises ValueError where shapes differ or memory is shared otherwise, TypeError for other arrays
    (TypingError in compiled code).

    NumPy: `{numpy}`.
    """
    return kernel(value)


def _activation(name: str) -> Any:
    formula = str(activations.ACTIVATIONS[name].value.__doc__)
    return _value(name, formula, f"fastbp.activations.{name}(z)")


def _derivative(name: str) -> Any:
    """Of an activation: delta times act'(z)."""
    key = f"{name}_backward"
    cost = _cost_of(key)

    def derivative(delta: Any, z: Any, a: Any, out: Any = None) -> Any:
        check("delta", delta, 0, delta)
        check("z", z, 0, delta)
        check("a", a, 0, delta)
        delta, z, a, out = uncounted(delta), uncounted(z), uncounted(a), uncounted(out)
        alike("delta and z have shapes %s and %s: they must be the same", delta, z)
        alike("delta and a have shapes %s and %s: they must be the same", delta, a)
        return counted(number_by_number(key, cost, delta, z, a, out, NO_SCALAR))

    derivative.__name__ = derivative.__qualname__ = f"{name}_derivative"
    derivative.__doc__ = f"""delta times the derivative of {name} at z: the deltas of such a layer.

    {activations.ACTIVATIONS[name].derivative.__doc__}

    delta, z and a = {name}(z): C-ordered, of one dtype, float32 or float64, and of one shape. out: of the
    same shape, for the result; it may be one of them. Returns out, or a new array.

    Raises ValueError where shapes differ or memory is shared otherwise, TypeError for other arrays
    (TypingError in compiled code).

    NumPy: `delta * fastbp.activations.{name}_derivative(z, a)`.
    """
    return kernel(derivative)


relu = _value("relu", "max(0, z); NaN stays NaN.", "np.maximum(z, 0)")
sigmoid = _value(
    "sigmoid",
    "1 / (1 + exp(-z)), at most 2.5 ulp off; nothing overflows, NaN stays NaN.",
    "1 / (1 + np.exp(-z))",
)
exp = _value(
    "exp",
    """exp(z), at most 1 ulp off; 0 where it would be subnormal, infinity from the last 4 digits before the
    overflow on; NaN stays NaN.""",
    "np.exp(z)",
)
tanh, tanh_derivative = _activation("tanh"), _derivative("tanh")
identity, identity_derivative = _activation("identity"), _derivative("identity")
leaky_relu, leaky_relu_derivative = _activation("leaky_relu"), _derivative("leaky_relu")
elu, elu_derivative = _activation("elu"), _derivative("elu")
selu, selu_derivative = _activation("selu"), _derivative("selu")
gelu, gelu_derivative = _activation("gelu"), _derivative("gelu")
gelu_tanh, gelu_tanh_derivative = _activation("gelu_tanh"), _derivative("gelu_tanh")
silu, silu_derivative = _activation("silu"), _derivative("silu")
mish, mish_derivative = _activation("mish"), _derivative("mish")
softplus, softplus_derivative = _activation("softplus"), _derivative("softplus")


@kernel
def mse_sigmoid_error(y_pred: Any, y_true: Any, out: Any = None) -> Any:
    """(y_pred - y_true) y_pred (1 - y_pred), with y_pred = sigmoid(z): the derivative of 1/2 (y_pred -
    y_true)^2 with respect to z, the output layer's deltas.

    y_pred, y_true: C-ordered, of one dtype, float32 or float64, and of one shape. out: of the same shape, for
    the result; it may be one of them. Returns out, or a new array.

    Raises ValueError where shapes differ or memory is shared otherwise, TypeError for other arrays
    (TypingError in compiled code).

    NumPy: `(y_pred - y_true) * y_pred * (1 - y_pred)`.
    """
    check("y_pred", y_pred, 0, y_pred)
    check("y_true", y_true, 0, y_pred)
    y_pred, y_true, out = uncounted(y_pred), uncounted(y_true), uncounted(out)
    alike("y_pred and y_true have shapes %s and %s: they must be the same", y_pred, y_true)
    return counted(number_by_number("mse_sigmoid_error", SIMPLE, y_pred, y_true, None, out, NO_SCALAR))


@kernel
def softmax(z: Any, out: Any = None) -> Any:
    """exp(z) over the sum of the row's, with the row's largest z taken off first, so that nothing overflows.

    z: (rows, units) with at least one unit, C-ordered, float32 or float64. out: of the same shape, for the
    result; it may be z. Returns out, or a new array.

    Raises ValueError where there are no units, shapes differ or memory is shared otherwise, TypeError for
    other arrays (TypingError in compiled code).

    NumPy: `e = np.exp(z - z.max(axis=1, keepdims=True)); e / e.sum(axis=1, keepdims=True)`.
    """
    check("z", z, 2, z)
    z, out = uncounted(z), uncounted(out)
    if z.shape[1] == 0:
        raise ShapeError("z has shape %s: it must have at least one column", z.shape)
    a = result(out, z.shape, z)
    unlike_overlap(span(out), span(z))
    run("softmax", z, z.nbytes * OF_SOFTMAX >> 10, (address(z), address(a), z.shape[0], z.shape[1]))
    return counted(a)
