"""The mathematics of fastbp in plain NumPy, written to be read.

Part 1 is the tutorial's network, equation by equation: X -> (W1, b1) -> ReLU -> (W2, b2) -> Sigmoid, trained
on half the sum of squared errors. Batches are rows: X is (batch, inputs), y_true is (batch, outputs).

Part 2 is the same for any number of layers, activations and losses (their values and derivatives are in
`fastbp.activations` and `fastbp.losses`, layer normalisation is in `fastbp.formulas.layer_norm`, and how
numbers are rounded to bfloat16 in `fastbp.formulas.bfloat16`);
part 3 is what is done around an optimizer's step, and the steps are in `fastbp.formulas.optimizer_steps`.

Every name here has a twin of the same signature in `fastbp`, and results agree to rounding: this module
judges the kernels, so it stays simple. `import fastbp.reference as fastbp` works.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import callbacks, checks, metrics, model, optimizers, plot, schedules
from fastbp.activations import sigmoid
from fastbp.callbacks import EarlyStopping
from fastbp.formulas import bfloat16, layer_norm, philox
from fastbp.formulas.optimizer_steps import STEPS
from fastbp.history import History
from fastbp.inputs.samples import split_weights
from fastbp.inspection.backward_check import check_backward
from fastbp.inspection.config import show_config
from fastbp.network.backend import Backend, Steps
from fastbp.network.evaluation import output_delta, penalty, sample_losses
from fastbp.network.results import Trace
from fastbp.optimizer_base import Optimizer, State
from fastbp.optimizers import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop  # noqa: F401  (offered, too)

if TYPE_CHECKING:
    from fastbp.many import Ensemble, fit_many, sweep

Array = NDArray[Any]

__all__ = [
    "MLP",
    "EarlyStopping",
    "Ensemble",
    "History",
    "backward",
    "callbacks",
    "check_backward",
    "fit_many",
    "forward",
    "metrics",
    "plot",
    "schedules",
    "sgd_update",
    "show_config",
    "sweep",
    "train_step",
]
__all__ += optimizers.__all__


def __getattr__(name: str) -> Any:
    if name in ("Ensemble", "fit_many", "sweep"):  # as in fastbp: imported when they are asked for
        from fastbp import many

        return getattr(many, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# ---- 1. the tutorial's network: the equations ---------------------------------------------------------
#
# What overflows is infinite and what underflows is 0, whatever np.seterr says (hence np.errstate).


@np.errstate(all="ignore")
def _forward(X: Array, W1: Array, b1: Array, W2: Array, b2: Array) -> tuple[Array, Array, Array, Array]:
    z1 = X @ W1 + b1  # (batch, hidden)
    a1 = np.maximum(0, z1)  # (batch, hidden)
    z2 = a1 @ W2 + b2  # (batch, outputs)
    y_pred = sigmoid(z2)  # (batch, outputs): 1 / (1 + exp(-z2)) without overflow
    return z1, a1, z2, y_pred


@np.errstate(all="ignore")
def _backward(
    X: Array, y_true: Array, z1: Array, a1: Array, y_pred: Array, W2: Array
) -> tuple[Array, Array, Array, Array]:
    dz2 = (y_pred - y_true) * y_pred * (1 - y_pred)  # (batch, outputs)
    dW2 = a1.T @ dz2  # (hidden, outputs)
    db2 = dz2.sum(axis=0)  # (outputs,)
    dz1 = (dz2 @ W2.T) * (z1 > 0)  # (batch, hidden)
    dW1 = X.T @ dz1  # (inputs, hidden)
    db1 = dz1.sum(axis=0)  # (hidden,)
    return dW1, db1, dW2, db2


@np.errstate(all="ignore")
def _sgd_update(params: Sequence[Array], grads: Sequence[Array], lr: float) -> None:
    for param, grad in zip(params, grads, strict=True):
        param -= lr * grad  # in place: the caller's array changes


@np.errstate(all="ignore")
def _half_squared_error(y_pred: Array, y_true: Array) -> float:
    return float(0.5 * np.sum(np.square(y_pred - y_true, dtype=np.float64)))


# ---- 1. the tutorial's network: the public functions, which check their arguments first ---------------


def forward(
    X: ArrayLike, W1: ArrayLike, b1: ArrayLike, W2: ArrayLike, b2: ArrayLike, *, check_finite: bool = True
) -> tuple[Array, Array, Array, Array]:
    """The forward pass: (z1, a1, z2, y_pred). See `fastbp.forward`."""
    return _forward(*checks.forward_arguments(X, W1, b1, W2, b2, check_finite))


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
    """The gradients of half the sum of squared errors: (dW1, db1, dW2, db2). See `fastbp.backward`."""
    return _backward(*checks.backward_arguments(X, y_true, z1, a1, y_pred, W2, check_finite))


def sgd_update(
    params: Sequence[Array], grads: Sequence[ArrayLike], lr: float, *, check_finite: bool = True
) -> None:
    """One step of gradient descent, in place. See `fastbp.sgd_update`."""
    _sgd_update(*checks.update_arguments(params, grads, lr, check_finite))


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
    """One step of training, parameters updated in place; the loss before it. See `fastbp.train_step`."""
    x, y, w1, c1, w2, c2, rate = checks.train_step_arguments(X, y_true, W1, b1, W2, b2, lr, check_finite)
    z1, a1, _z2, y_pred = _forward(x, w1, c1, w2, c2)
    loss = _half_squared_error(y_pred, y)
    grads = _backward(x, y, z1, a1, y_pred, w2)
    _sgd_update((w1, c1, w2, c2), grads, rate)
    return loss


# ---- 2. a network of any number of layers --------------------------------------------------------------


class NumPyBackend(Backend):
    """The forward pass, backpropagation and training steps, written as the equations are."""

    @np.errstate(all="ignore")
    def forward(self, X: Array, masks: Sequence[Array | None] | None = None) -> Trace:
        """masks: what dropout multiplies each hidden layer's a with, on the way to the next layer."""
        weights, biases, gains = self.parameters.weights, self.parameters.biases, self.parameters.gains
        trace = Trace(X, [], [])
        z, a = trace.z, trace.a
        inputs = X
        for i, (W, b, activation) in enumerate(
            zip(weights, biases, self.architecture.activations, strict=True)
        ):
            product = self._product(inputs, W)  # (batch, fan_out)
            if i < len(gains):
                n, inverse_std = layer_norm.normalise(product)  # (batch, fan_out), (batch,)
                trace.n.append(n)
                trace.inverse_std.append(inverse_std)
                product = gains[i] * n
            z.append(product + b)  # (batch, fan_out)
            a.append(activation.value(z[-1]))  # (batch, fan_out)
            inputs = _masked(a[-1], masks, i)
        return trace

    def _product(self, A: Array, B: Array) -> Array:
        """A @ B, each rounded first where the model has a `precision`."""
        if self.architecture.precision is not None:
            A, B = bfloat16.rounded(A), bfloat16.rounded(B)
        product: Array = A @ B
        return product

    def predict(self, X: Array) -> Array:
        """The last activation, some rows at a time."""
        out = np.empty((len(X), self.architecture.outputs), self.architecture.dtype)
        for rows in self.architecture.row_blocks(len(X)):
            out[rows] = self.forward(X[rows]).y_pred
        return out

    def _noisy(self, X: Array, step: int) -> Array:
        """X with what `input_noise` adds in this step."""
        if not self.architecture.input_noise:
            return X
        noise = self.architecture.input_noise * philox.standard_normal(self.streams.noise_key, step, *X.shape)
        noisy: Array = X + noise.astype(self.architecture.dtype)
        return noisy

    def _masks(self, rows: int, step: int) -> list[Array | None]:
        """Dropout: 1 / (1 - p) for units kept in this step, 0 for others, (batch, units) a hidden layer."""
        masks: list[Array | None] = []
        widths, dropout = self.architecture.layer_sizes[1:-1], self.architecture.dropout
        for layer, (units, p) in enumerate(zip(widths, dropout, strict=True), 1):
            kept = philox.kept(self.streams.noise_key, step, layer, rows, units, p) if p else None
            masks.append(None if kept is None else (kept / philox.keep(p)).astype(self.architecture.dtype))
        return masks

    def _gradients(
        self, trace: Trace, Y: Array, divisor: float, masks: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """dW of every layer, then every db, every dg. divisor: of the step, see `Architecture.divisor`."""
        z, a, weights, gains = trace.z, trace.a, self.parameters.weights, self.parameters.gains
        inputs = [trace.X, *(_masked(a_l, masks, i) for i, a_l in enumerate(a[:-1]))]
        delta = output_delta(self.architecture, trace, Y)  # (batch, outputs)
        delta = delta / divisor if divisor else np.zeros_like(delta)
        dW, db = [self._product(inputs[-1].T, delta)], [delta.sum(axis=0)]
        dg: list[Array] = []
        for i in range(len(z) - 2, -1, -1):
            delta = _masked(self._product(delta, weights[i + 1].T), masks, i)  # with respect to a[i]
            delta = delta * self.architecture.activations[i].derivative(z[i], a[i])  # with respect to z[i]
            db.insert(0, delta.sum(axis=0))  # (fan_out,)
            if gains:
                n = trace.n[i]
                dg.insert(0, (delta * n).sum(axis=0))  # (fan_out,)
                delta = layer_norm.backward(delta * gains[i], n, trace.inverse_std[i])
            dW.insert(0, self._product(inputs[i].T, delta))  # (fan_in, fan_out)
        return [*dW, *db, *dg]

    def _with_penalty(self, grads: list[Array], divisor: float) -> list[Array]:
        """dW of every layer, with the gradient of l2 / 2 * W² / divisor; then every db and dg as they are."""
        l2, weights = self.architecture.l2, self.parameters.weights
        if not l2 or not divisor:
            return grads
        dW = [g + l2 / divisor * W for g, W in zip(grads, weights, strict=False)]
        return [*dW, *grads[len(weights) :]]

    def _divisor(self, Y: Array) -> float:
        """What loss and gradients of a batch are divided by; 0 if all of its rows have weight 0."""
        return self.architecture.divisor(len(Y), split_weights(Y, self.architecture.outputs)[1])

    @np.errstate(all="ignore")
    def backward(self, trace: Trace, Y: Array) -> Array:
        """The gradients of a batch as one flat array."""
        flat = np.empty_like(self.parameters.flat)
        parts, divisor = itertools.chain(*self.parameters.split(flat)), self._divisor(Y)
        gradients = self._with_penalty(self._gradients(trace, Y, divisor), divisor)
        for part, gradient in zip(parts, gradients, strict=True):
            part[...] = gradient
        return flat

    def train(
        self,
        steps: Steps,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
        *,
        only_if_finite: bool = False,
    ) -> bool:
        """One step after another; see `Backend.train`."""
        buffers = [[*itertools.chain(*self.parameters.split(buffer))] for buffer in state.buffers]
        samples, per_epoch = len(steps.samples), -(-len(steps.samples) // steps.batch_size)
        with np.errstate(all="ignore"):  # fit itself watches for NaN and infinity
            for s in range(steps.first, steps.last):
                epoch, step = divmod(s, per_epoch)
                start, stop = step * steps.batch_size, min((step + 1) * steps.batch_size, samples)
                loss, grads = self._loss_and_gradients(steps, epoch, start, stop)
                losses_out[s - steps.first] = loss
                if not grads:  # a batch without weight
                    continue
                state.steps += 1
                self._update(optimizer, _clipped(optimizer, grads), state.steps, buffers)
        return True

    def _loss_and_gradients(
        self, steps: Steps, epoch: int, start: int, stop: int
    ) -> tuple[float, list[Array]]:
        """Of rows start to stop of an epoch, `part` rows at a time, all with the same parameters.

        The loss is the batch's, times its rows unless it is a sum. No gradients: there is no weight.
        """
        loss, grads = 0.0, list[Array]()
        divisor = self._divisor(_rows_of(steps, epoch, start, stop)[1])
        for begin, end in _parts(steps, start, stop):
            x, y = _rows_of(steps, epoch, begin, end)
            self.streams.steps_trained += 1
            x = self._noisy(x, self.streams.steps_trained)
            masks = self._masks(len(x), self.streams.steps_trained)
            trace = self.forward(x, masks)
            loss += float(sample_losses(self.architecture, trace, y).sum())
            more = self._gradients(trace, y, divisor, masks)
            grads = [g + d for g, d in zip(grads, more, strict=True)] if grads else more
        if divisor == 0:
            return 0.0, []
        loss += steps.penalty_times * penalty(self.architecture, self.parameters.weights)
        grads = self._with_penalty(grads, divisor)
        if self.architecture.reduction == "weighted_mean":
            loss *= (stop - start) / divisor
        return loss, grads

    def _update(self, o: Optimizer, grads: list[Array], t: int, buffers: list[list[Array]]) -> None:
        """Step t of the optimizer, on every parameter array and its part of each of the state's buffers."""
        step_of, of_biases = STEPS[type(o).__name__], o.of_biases()
        for i, (param, grad) in enumerate(zip(self.parameters.views, grads, strict=True)):
            rule = o if i < len(self.parameters.weights) else of_biases
            if rule.l1:
                grad = grad + rule.l1 * np.sign(param)
            step_of(rule, param, grad, t, *(buffer[i] for buffer in buffers))
        if self.architecture.max_norm is not None:
            _limit_norms(self.parameters.weights, self.architecture.max_norm)


class MLP(model.MLP):
    __doc__ = model.MLP.__doc__
    backend_type = NumPyBackend


def _parts(steps: Steps, start: int, stop: int) -> list[tuple[int, int]]:
    """Where the parts of a batch begin and end, whose rows go from start to stop."""
    if steps.shards is not None:
        return [steps.shards.bounds(k, start, stop) for k in range(steps.shards.count)]
    part = steps.part or steps.batch_size
    return [(begin, min(begin + part, stop)) for begin in range(start, stop, part)]


def _rows_of(steps: Steps, epoch: int, begin: int, end: int) -> tuple[Array, Array]:
    """X and Y of rows begin to end of an epoch, in its order."""
    samples = steps.samples
    rows: Any = slice(begin, end)
    if steps.order is not None:
        rows = steps.order[epoch * len(samples) :][rows]
    return samples.X[rows], samples.Y[rows]


def _masked(values: Array, masks: Sequence[Array | None] | None, layer: int) -> Array:
    """What dropout leaves of a hidden layer's activations, or of the error signal on its way back."""
    mask = masks[layer] if masks and layer < len(masks) else None
    return values if mask is None else values * mask


# ---- 3. what is done to gradients before, and to weights after the optimizer's step -----------------------


def _clipped(o: Optimizer, grads: list[Array]) -> list[Array]:
    """All gradients of the model, clipped by their common norm, then by value."""
    if o.clip_norm is not None:
        norm = math.sqrt(sum(float(np.sum(np.square(g, dtype=np.float64))) for g in grads))
        # NaN if the norm is not finite: no step can be taken from there, and that shall be seen
        factor = min(1.0, o.clip_norm / (norm + 1e-6)) if math.isfinite(norm) else math.nan
        grads = [factor * g for g in grads]
    if o.clip_value is not None:
        grads = [np.clip(g, -o.clip_value, o.clip_value) for g in grads]
    return grads


def _limit_norms(weights: list[Array], max_norm: float) -> None:
    for W in weights:  # (fan_in, fan_out): a unit's incoming weights are a column
        norms = np.sqrt(np.square(W, dtype=np.float64).sum(axis=0))  # (fan_out,)
        W *= np.where(norms > max_norm, max_norm / (norms + 1e-7), 1.0).astype(W.dtype)
