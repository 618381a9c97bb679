"""The functions on the caller's arrays: forward, backward and a training step of a two-layer network.

And models in other people's compiled code, what a prediction and a training step cost there and in Python;
and each of fastbp.kernels next to NumPy's line in the same run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from .common import DTYPES, LR, QUICK, SHAPES_OF_PASSES, OverShapes, require, two_layers

SIZES = {"3-16-1": (3, 16, 1), "64-128-10": (64, 128, 10)}
CALLS = 10 if QUICK else 1000


@njit
def predict(model: Any, X: Any, out: Any, calls: int) -> None:
    for _ in range(calls):
        out[...] = model.predict(X)


@njit
def predict_into(model: Any, X: Any, out: Any, calls: int) -> None:
    for _ in range(calls):
        model.predict_into(X, out)


@njit
def train(model: Any, X: Any, Y: Any, state: Any, calls: int) -> None:
    for _ in range(calls):
        model.train_step(X, Y, state)


WAYS: dict[str, Callable[..., None]] = {
    "predict in njit": predict,
    "predict_into in njit": predict_into,
    "predict from Python": predict.py_func,
}


def model_of(sizes: str, dtype: str) -> Any:
    """A model, which on old commits compiled code cannot take."""
    model = require("fastbp", "MLP")(SIZES[sizes], hidden="tanh", output="identity", dtype=dtype, seed=0)
    if not hasattr(model, "training_state"):
        raise NotImplementedError("on this commit compiled code takes no models")
    return model


class Forward(OverShapes):
    params = [SHAPES_OF_PASSES, *OverShapes.params[1:]]

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.forward = require(implementation, "forward")
        n = two_layers(shape, dtype)
        self.arguments = (n.X, n.W1, n.b1, n.W2, n.b2)
        self.forward(*self.arguments)

    def time_forward(self, shape: str, dtype: str, implementation: str) -> None:
        self.forward(*self.arguments)

    time_forward.pretty_name = "forward, two layers"


class Backward(OverShapes):
    params = Forward.params

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.backward = require(implementation, "backward")
        n = two_layers(shape, dtype)
        z1, a1, _, y_pred = require(implementation, "forward")(n.X, n.W1, n.b1, n.W2, n.b2)
        self.arguments = (n.X, n.Y, z1, a1, y_pred, n.W2)
        self.backward(*self.arguments)

    def time_backward(self, shape: str, dtype: str, implementation: str) -> None:
        self.backward(*self.arguments)

    time_backward.pretty_name = "backward, two layers"


class TrainStep(OverShapes):
    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.train_step = require(implementation, "train_step")
        n = two_layers(shape, dtype)
        self.arguments = (n.X, n.Y, n.W1, n.b1, n.W2, n.b2, LR)
        self.train_step(*self.arguments)

    def time_train_step(self, shape: str, dtype: str, implementation: str) -> None:
        self.train_step(*self.arguments)

    time_train_step.pretty_name = "train_step, two layers"


class Prediction:
    """Of one row, 1000 times."""

    params = [list(SIZES), DTYPES, list(WAYS)]
    param_names = ["network", "dtype", "way"]
    timeout = 300
    rounds = 1
    repeat = (3, 10, 1.0)

    def setup(self, sizes: str, dtype: str, way: str) -> None:
        model = model_of(sizes, dtype)
        X, out = np.ones((1, SIZES[sizes][0]), dtype), np.empty((1, SIZES[sizes][-1]), dtype)
        self.work = lambda: WAYS[way](model, X, out, CALLS)
        self.work()

    def time_1000_predictions(self, sizes: str, dtype: str, way: str) -> None:
        self.work()

    time_1000_predictions.pretty_name = "1000 predictions of one row"


class CompiledStep:
    """A training step on 32 rows with Adam, 1000 times."""

    params = [list(SIZES), ["njit", "Python"]]
    param_names = ["network", "way"]
    timeout = 300
    rounds = 1
    repeat = (3, 10, 1.0)

    def setup(self, sizes: str, way: str) -> None:
        model, optimizer = model_of(sizes, "float32"), require("fastbp", "Adam")()
        X, Y = (np.ones((32, n), np.float32) for n in (SIZES[sizes][0], SIZES[sizes][-1]))
        state = model.training_state(optimizer, batch_size=32)
        work, given = (train, state) if way == "njit" else (train.py_func, optimizer)
        self.work = lambda: work(model, X, Y, given, CALLS)
        self.work()

    def time_1000_steps(self, sizes: str, way: str) -> None:
        self.work()

    time_1000_steps.pretty_name = "1000 training steps of 32 rows, Adam"


class Gain:
    """How many times as long a prediction of one row takes from Python as in compiled code."""

    params = [list(SIZES), DTYPES]
    param_names = ["network", "dtype"]
    timeout = 300
    unit = "times"

    def setup(self, sizes: str, dtype: str) -> None:
        self.model = model_of(sizes, dtype)

    def track_python_over_njit(self, sizes: str, dtype: str) -> float:
        X, out = np.ones((1, SIZES[sizes][0]), dtype), np.empty((1, SIZES[sizes][-1]), dtype)
        best = {}
        for way in (predict_into, predict.py_func):
            way(self.model, X, out, CALLS)
            times = []
            for _ in range(3 if QUICK else 30):
                began = time.perf_counter()
                way(self.model, X, out, CALLS)
                times.append(time.perf_counter() - began)
            best[way] = min(times)
        return best[predict.py_func] / best[predict_into]

    track_python_over_njit.pretty_name = "a prediction from Python / in compiled code"


# ---- fastbp.kernels ------------------------------------------------------------------------------------

# name -> (rows of a batch, fan_in, fan_out)
LAYERS = {
    "32 x 8-16": (32, 8, 16),
    "128 x 64-128": (128, 64, 128),
    "128 x 784-256": (128, 784, 256),
    "1024 x 1024-1024": (1024, 1024, 1024),
}
OF_MEMORY = [(1, 1024, 1024), (4, 1024, 1024), (16, 1024, 1024), (1024, 1024, 1), (1024, 1021, 1)]
ROWS_AND_COLUMNS = {f"{rows} x {fan_in}-{out}": (rows, fan_in, out) for rows, fan_in, out in OF_MEMORY}


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def operands(layer: str, dtype: str) -> dict[str, np.ndarray]:
    rows, fan_in, fan_out = (LAYERS | ROWS_AND_COLUMNS)[layer]
    rng = np.random.default_rng(0)
    shapes = {
        "X": (rows, fan_in),
        "W": (fan_in, fan_out),
        "G": (fan_in, fan_out),
        "b": (fan_out,),
        "d": (rows, fan_out),
        "z": (rows, fan_out),
    }
    made = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    made["y"] = _sigmoid(made["z"]).astype(dtype)
    made["lr"] = np.dtype(dtype).type(0.1)
    return made


# kernel -> what it is given, and NumPy's line
KERNELS: dict[str, tuple[str, Callable[..., Any]]] = {
    "matmul": ("X W", lambda X, W: X @ W),
    "matmul_bias": ("X W b", lambda X, W, b: X @ W + b),
    "matmul_at_b": ("X d", lambda X, d: X.T @ d),
    "matmul_a_bt": ("d W", lambda d, W: d @ W.T),
    "bias_sums": ("d", lambda d: d.sum(axis=0)),
    "relu": ("z", lambda z: np.maximum(z, 0)),
    "relu_mask": ("d z", lambda d, z: d * (z > 0)),
    "sigmoid": ("z", _sigmoid),
    "sigmoid_derivative": ("d y", lambda d, y: d * (y * (1 - y))),
    "tanh": ("z", np.tanh),
    "exp": ("z", np.exp),
    "softmax": ("z", _softmax),
    "mse_sigmoid_error": ("y d", lambda y, d: (y - d) * y * (1 - y)),
    "sgd_step": ("W G lr", lambda W, G, lr: W - lr * G),
}
PRODUCTS = ("matmul", "matmul_bias", "matmul_at_b", "matmul_a_bt")


def call(kernel: str, layer: str, dtype: str, implementation: str) -> Callable[[], Any]:
    """One call from Python; NotImplementedError on a commit that lacks the kernel."""
    names, line = KERNELS[kernel]
    of = operands(layer, dtype)
    arguments = [of[name] for name in names.split()]
    if implementation == "numpy":
        return lambda: line(*arguments)
    function = ours(kernel)
    return lambda: function(*arguments)


def ours(kernel: str) -> Any:
    """The kernel; NotImplementedError on a commit that lacks it."""
    try:
        from fastbp import kernels

        return getattr(kernels, kernel)
    except (ImportError, AttributeError) as error:
        raise NotImplementedError(f"this commit has no fastbp.kernels.{kernel}") from error


def _timed(words: str) -> Callable[..., None]:
    """The method that asv times, with a name of its own."""

    def time_call(self: Any, shape: str, dtype: str, implementation: str) -> None:
        self.call()

    time_call.pretty_name = words  # type: ignore[attr-defined]
    return time_call


class _Curve:
    params = [list(LAYERS), DTYPES, ["fastbp", "numpy"]]
    param_names = ["shape", "dtype", "implementation"]
    timeout = 900
    rounds = 1
    repeat = (3, 10, 0.3)
    warmup_time = 0.02
    kernel = ""

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.call = call(self.kernel, shape, dtype, implementation)
        self.call()


class MatrixProductPlusBias(_Curve):
    kernel, time_call = "matmul_bias", _timed("matrix product plus bias")


class MatrixProductWeightGradient(_Curve):
    kernel, time_call = "matmul_at_b", _timed("matrix product, weights' gradient")


class MatrixProductDeltas(_Curve):
    kernel, time_call = "matmul_a_bt", _timed("matrix product, deltas of the layer below")


class RowOrColumnProductPlusBias(MatrixProductPlusBias):
    params = [list(ROWS_AND_COLUMNS), *_Curve.params[1:]]
    time_call = _timed("matrix product plus bias, of few rows or one column")


class RowOrColumnWeightGradient(MatrixProductWeightGradient):
    params = RowOrColumnProductPlusBias.params
    time_call = _timed("weights' gradient, of few rows or one column")


class Relu(_Curve):
    kernel, time_call = "relu", _timed("ReLU")


class ReluMask(_Curve):
    kernel, time_call = "relu_mask", _timed("the ReLU mask")


class Sigmoid(_Curve):
    kernel, time_call = "sigmoid", _timed("Sigmoid")


class SigmoidDerivative(_Curve):
    kernel, time_call = "sigmoid_derivative", _timed("the Sigmoid derivative")


class BiasReductions(_Curve):
    kernel, time_call = "bias_sums", _timed("the bias reductions")


class SgdStep(_Curve):
    kernel, time_call = "sgd_step", _timed("SGD's step")


class Softmax(_Curve):
    kernel, time_call = "softmax", _timed("softmax")


class MseSigmoidError(_Curve):
    kernel, time_call = "mse_sigmoid_error", _timed("output error of mse and sigmoid")


# kernel -> NumPy's line as others compile it
IN_COMPILED_CODE: dict[str, Callable[[Any], Any]] = {
    "relu": lambda z: np.maximum(z, z.dtype.type(0)),
    "sigmoid": _sigmoid,
}


class FewNumbers:
    """In somebody's compiled code, 1000 times: what a call costs besides the work."""

    params = [list(IN_COMPILED_CODE), [10, 100], ["fastbp", "numpy"]]
    param_names = ["kernel", "numbers", "implementation"]
    timeout = 300
    rounds = 1
    repeat = (3, 10, 0.3)

    def setup(self, kernel: str, numbers: int, implementation: str) -> None:
        function = ours(kernel) if implementation == "fastbp" else njit(IN_COMPILED_CODE[kernel])

        @njit
        def repeat(z: Any, calls: int) -> None:
            for _ in range(calls):
                function(z)

        z = np.ones(numbers, np.float32)
        self.work = lambda: repeat(z, CALLS)
        self.work()

    def time_1000_calls(self, kernel: str, numbers: int, implementation: str) -> None:
        self.work()

    time_1000_calls.pretty_name = "1000 calls of a kernel in compiled code, few numbers"


class ShareOfLimit:
    """Of the machine's multiply-adds with all threads, what a product reaches."""

    params = [list(PRODUCTS), list(LAYERS)[2:], DTYPES]
    param_names = ["kernel", "shape", "dtype"]
    timeout = 900

    def setup(self, kernel: str, shape: str, dtype: str) -> None:
        self.call = call(kernel, shape, dtype, "fastbp")

    def track_share(self, kernel: str, shape: str, dtype: str) -> float:
        return share_of_limit(self.call, shape, dtype)

    track_share.unit = "of the limit"  # type: ignore[attr-defined]
    track_share.pretty_name = "share of the limit of multiply-adds (more is better)"  # type: ignore[attr-defined]


def seconds(function: Callable[[], Any], *, leg: float = 0.01, legs: int = 5) -> float:
    """Of one call: the best of some legs."""
    from .measuring import seconds_each

    def run(times: int) -> None:
        for _ in range(times):
            function()

    return seconds_each(run, leg=leg, legs=legs)


def share_of_limit(function: Callable[[], Any], shape: str, dtype: str) -> float:
    """What a product of a layer reaches of the limit of all threads."""
    from fastbp.engine.probes import available_threads, multiply_add_limit

    rows, fan_in, fan_out = LAYERS[shape]
    threads = available_threads(64)
    each = seconds(function)
    return 2 * rows * fan_in * fan_out / each / multiply_add_limit(dtype, threads)
