"""forward / backward / sgd_update / train_step on the caller's arrays: drop-in for a NumPy implementation.

The network is the tutorial's: X -> (W1, b1) -> ReLU -> (W2, b2) -> Sigmoid, with half the sum of squared
errors, summed over outputs and batch. `fastbp.reference` has the same functions in plain NumPy, to be read.

Each function has a short way for arrays that the kernels take as they are (ndarrays of one dtype, C-ordered,
writable): compiled code looks at the shapes and does the work. Everything else goes through `checks`,
which converts or explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike, NDArray

from fastbp import checks
from fastbp.engine.entries import two_layer

Array = NDArray[Any]


def _for_kernel(array: Array) -> Array:
    """The array as the kernels take it; a copy if it is not C-ordered."""
    if not (array.flags.c_contiguous and array.flags.aligned):
        return np.array(array, order="C")
    if not array.flags.writeable:
        return writable_alias(array)
    return np.asarray(array)


def _parameters_overlap(X: Array, y_true: Array, *parameters: Array) -> bool:
    """Whether a parameter may share memory with another one (tied weights, W2 = W1.T) or with the data."""
    arrays = X, y_true, *parameters
    return any(np.may_share_memory(arrays[i], arrays[j]) for i in range(2, len(arrays)) for j in range(i))


class _Memory:
    """Holds an array alive and offers its memory as writable."""

    def __init__(self, array: Array) -> None:
        interface = dict(array.__array_interface__)
        interface["data"] = (interface["data"][0], False)
        self.array = array
        self.__array_interface__ = interface


def writable_alias(array: Array) -> Array:
    """The same memory with the read-only mark taken off.

    Numba compiles a kernel once more for read-only arguments, which costs seconds, and the kernels do not
    write to what they only read.
    """
    return np.asarray(_Memory(array))


def forward(
    X: ArrayLike, W1: ArrayLike, b1: ArrayLike, W2: ArrayLike, b2: ArrayLike, *, check_finite: bool = True
) -> tuple[Array, Array, Array, Array]:
    """The forward pass; everything that `backward` needs is returned. No argument is modified.

        z1 = X @ W1 + b1          (batch, hidden)
        a1 = max(0, z1)           (batch, hidden)
        z2 = a1 @ W2 + b2         (batch, outputs)
        y_pred = 1 / (1 + exp(-z2))   (batch, outputs)

    Parameters
    ----------
    X : (batch, inputs). Lists, integers and other floats are converted to the parameters' dtype.
    W1, b1, W2, b2 : (inputs, hidden), (hidden,), (hidden, outputs), (outputs,), all float32 or all float64.
    check_finite : look for NaN and infinity in X first.

    Returns
    -------
    z1, a1, z2, y_pred : new arrays of the parameters' dtype.

    Raises
    ------
    ValueError : shapes that do not fit, an empty batch, NaN or infinity in X.
    TypeError : complex, object or text dtype; parameters of different dtypes.
    """
    # What is ready is found by these two; compiled code refuses whatever else does not fit.
    if type(check_finite) is bool and type(X) is type(W2) is ndarray:
        result = two_layer.forward(X, W1, b1, W2, b2, check_finite=check_finite)
        if result is not None:
            return result
    arrays = checks.forward_arguments(X, W1, b1, W2, b2, check_finite)
    result = two_layer.forward(*map(_for_kernel, arrays), check_finite=False)
    assert result is not None
    return result


def backward(
    X: ArrayLike,
    y_true: ArrayLike,
    z1: ArrayLike,
    a1: ArrayLike,
    y_pred: ArrayLike,
    W2: ArrayLike,
    *,
    check_finite: bool = True,
) -> tuple[Array, Array, Array, Array]:
    """The gradients of half the sum of squared errors, 1/2 sum (y_pred - y_true)². No argument is modified.

        dz2 = (y_pred - y_true) * y_pred * (1 - y_pred)      (batch, outputs)
        dW2 = a1.T @ dz2                                     (hidden, outputs)
        db2 = dz2 summed over the batch                      (outputs,)
        dz1 = (dz2 @ W2.T) * (z1 > 0)                        (batch, hidden)
        dW1 = X.T @ dz1                                      (inputs, hidden)
        db1 = dz1 summed over the batch                      (hidden,)

    Backpropagation as in Rumelhart, Hinton and Williams, Nature 323 (1986) 533-536.

    Parameters
    ----------
    X, y_true : (batch, inputs), (batch, outputs); converted like `forward`'s X.
    z1, a1, y_pred : what `forward` returned for the same X.
    W2 : (hidden, outputs).
    check_finite : look for NaN and infinity in X and y_true first, and at the first row of z1, a1 and y_pred,
        whether it may be what `forward` returned.

    Returns
    -------
    dW1, db1, dW2, db2 : new arrays of the dtype of W2, shaped like the parameters.

    Raises
    ------
    ValueError, TypeError : as `forward`; y_true must be (batch, outputs), also with one output.
    ValueError : in the first row, a1 is not max(0, z1), or y_pred is outside [0, 1].
    """
    if type(check_finite) is bool and type(X) is type(W2) is ndarray:
        result = two_layer.backward(X, y_true, z1, a1, y_pred, W2, check_finite=check_finite)
        if result is not None:
            return result
    arrays = checks.backward_arguments(X, y_true, z1, a1, y_pred, W2, check_finite)
    result = two_layer.backward(*map(_for_kernel, arrays), check_finite=False)
    assert result is not None
    return result


def sgd_update(
    params: Sequence[Array], grads: Sequence[ArrayLike], lr: float, *, check_finite: bool = True
) -> None:
    """One step of gradient descent, in place: each `param -= lr * grad`.

    Parameters
    ----------
    params : the arrays to update, float32 or float64 (all the same), of any shape and memory order.
    grads : as many arrays of the same shapes.
    lr : the learning rate, finite and not negative.
    check_finite : look for NaN and infinity in the gradients first; warn if there are two matrices or more
        among params, all of them zero.

    Raises
    ------
    ValueError, TypeError : before any parameter is changed.
    """
    parameters, gradients, rate = checks.update_arguments(params, grads, lr, check_finite)
    with np.errstate(all="ignore"):  # what overflows becomes infinite, whatever np.seterr says
        for param, grad in zip(parameters, gradients, strict=True):
            if param.flags.carray:
                two_layer.descend(param.reshape(-1), _for_kernel(grad).reshape(-1), rate)
            else:
                param -= rate * grad


def train_step(
    X: ArrayLike,
    y_true: ArrayLike,
    W1: Array,
    b1: Array,
    W2: Array,
    b2: Array,
    lr: float,
    *,
    check_finite: bool = True,
) -> float:
    """Forward pass, backward pass and gradient descent on one batch; the parameters are updated in place.

    Parameters
    ----------
    X, y_true : (batch, inputs), (batch, outputs), as for `forward` and `backward`.
    W1, b1, W2, b2 : writable arrays, all float32 or all float64, as for `forward`. Where some share memory
        (tied weights, W2 = W1.T), each of them is updated in turn, as `sgd_update` does.
    lr : the learning rate, finite and not negative.
    check_finite : look for NaN and infinity in X and y_true first; warn if W1 and W2 are all zero.

    Returns
    -------
    float : the loss 1/2 sum (y_pred - y_true)² before the update.

    Raises
    ------
    ValueError, TypeError : as `forward` and `sgd_update`, before any parameter is changed.
    """
    if type(check_finite) is bool and type(lr) is float and type(X) is type(W2) is ndarray:
        loss = two_layer.step(X, y_true, W1, b1, W2, b2, lr=lr, check_finite=check_finite)
        if loss is not None:
            return loss
    *arrays, rate = checks.train_step_arguments(X, y_true, W1, b1, W2, b2, lr, check_finite)
    if _parameters_overlap(*arrays):
        x, y, *parameters = arrays
        z1, a1, _, y_pred = forward(x, *parameters, check_finite=False)
        with np.errstate(all="ignore"):
            loss = 0.5 * float(np.sum(np.square(y_pred - y, dtype=np.float64)))
        grads = backward(x, y, z1, a1, y_pred, parameters[2], check_finite=False)
        sgd_update(parameters, grads, rate, check_finite=False)
        return loss
    for_kernel = [_for_kernel(array) for array in arrays]
    loss = two_layer.step(*for_kernel, lr=rate, check_finite=False)
    assert loss is not None
    for own, updated in zip((W1, b1, W2, b2), for_kernel[2:], strict=True):
        if not np.shares_memory(own, updated):
            own[...] = updated
    return loss
