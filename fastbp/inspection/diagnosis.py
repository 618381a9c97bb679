"""`MLP.diagnose`: what signals and gradients do in each layer, and what that means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp.formulas import layer_norm
from fastbp.inspection.symmetry import symmetric_layers
from fastbp.network.evaluation import output_delta
from fastbp.network.network import Network
from fastbp.network.results import Trace

Array = NDArray[Any]

# A layer's error signal (its delta) that is so many times smaller or larger than the output layer's has
# vanished or exploded on its way down; likewise activations, seen from the input.
VANISHED = 1e-3
EXPLODED = 1e3
# Exploding is also a gradient so many times longer than the weights it is to change.
GRADIENT_TO_WEIGHT = 100.0
# Shares of a layer's units from which a verdict speaks of them.
DEAD_SHARE = 0.25
SATURATED_SHARE = 0.5
# Saturated: the derivative is below 4% of its largest value, for at least nine rows in ten.
SATURATED = {"sigmoid": lambda a: (a < 0.01) | (a > 0.99), "tanh": lambda a: np.abs(a) > 0.98}
SATURATED_ROWS = 0.9
# The root mean square of inputs or targets up to which nobody is told to scale them.
WELL_SCALED = 10.0
FINE = "fine: signals and gradients pass through every layer"
# Share of outputs that are saturated at the wrong end, so that mse's gradient is lost there.
WRONG_SHARE = 0.1


@dataclass
class LayerDiagnosis:
    """One layer's figures, over all rows of the data. Norms are Frobenius norms."""

    layer: int  # counted from 1
    activation: str
    units: int
    mean: float  # of the activations
    spread: float  # their standard deviation
    dead: int  # ReLU units that are 0 for every row
    saturated: int  # Sigmoid and tanh units that are saturated for at least nine rows in ten
    delta: (
        float  # root mean square of the loss's derivative with respect to z, times the batch size if "mean"
    )
    gradient_norm: float  # of dW
    weight_norm: float  # of W
    ratio: float  # gradient_norm / weight_norm

    @property
    def dead_share(self) -> float:
        return self.dead / self.units

    @property
    def saturated_share(self) -> float:
        return self.saturated / self.units


@dataclass
class Diagnosis:
    """`layers`: figures of each layer. `verdicts`: what they mean, one sentence each. print() shows both."""

    layers: list[LayerDiagnosis]
    verdicts: list[str]

    @property
    def verdict(self) -> str:
        """All of it as one text."""
        return "\n".join(self.verdicts)

    def __str__(self) -> str:
        head = "layer  activation  units   mean  spread   dead  saturated  |dW|      |W|       |dW|/|W|"
        lines = [head]
        for s in self.layers:
            lines.append(
                f"{s.layer:<5}  {s.activation:<10}  {s.units:<5}  {s.mean:6.3g}  {s.spread:6.3g}  "
                f"{s.dead_share:4.0%}  {s.saturated_share:9.0%}  {s.gradient_norm:<8.2e}  "
                f"{s.weight_norm:<8.2e}  {s.ratio:.2e}"
            )
        return "\n".join([*lines, *self.verdicts])


def diagnose(model: Network, X: ArrayLike, Y: ArrayLike) -> Diagnosis:
    model.parameters.adopt()
    batch = model.reader.batch(X, Y, None, check_finite=True)
    return examine(model, batch.X[:], batch.Y[:])


def examine(model: Network, x: Array, y: Array) -> Diagnosis:
    """The diagnosis for prepared inputs and targets, as training has them."""
    with np.errstate(all="ignore"):  # numbers that blow up are what is looked for
        trace = model.backend.forward(x)
        z, a = trace.z, trace.a
        dW = model.parameters.split(model.backend.backward(trace, y))[0]
        deltas = _deltas(model, trace, y)
        layers = [
            _layer(model, i, a[i].astype(np.float64), deltas[i], dW[i].astype(np.float64), len(x))
            for i in range(len(z))
        ]
        targets = y[:, : model.architecture.outputs]
        scaling = _scaling(x, targets)
        verdicts = (
            _not_finite(z, scaling)
            or [
                *_dead(layers, len(x), scaling),
                *_saturated(layers[:-1], scaling),
                *_wrong_outputs(model, a[-1], targets),
                *_activations(model, layers, float(_rms(x))),
                *_exploding_gradients(layers, scaling),
                *_vanishing_gradients(model, layers),
                *_symmetric(model),
            ]
            or [FINE]
        )
    return Diagnosis(layers, verdicts)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def _deltas(model: Network, trace: Trace, Y: Array) -> list[Array]:
    """The derivative of each sample's loss with respect to every z, (batch, units) a layer."""
    deltas = [output_delta(model.architecture, trace, Y).astype(np.float64)]
    of_product = deltas[0]  # with respect to inputs @ W of the layer above
    for i in range(len(trace.z) - 2, -1, -1):
        below = of_product @ model.parameters.weights[i + 1].T.astype(np.float64)
        of_product = below * model.architecture.activations[i].derivative(trace.z[i], trace.a[i])
        deltas.insert(0, of_product)
        if model.parameters.gains:
            gain, n = model.parameters.gains[i].astype(np.float64), trace.n[i].astype(np.float64)
            of_product = layer_norm.backward(of_product * gain, n, trace.inverse_std[i])
    return deltas


def _layer(model: Network, i: int, a: Array, delta: Array, dW: Array, rows: int) -> LayerDiagnosis:
    activation = model.architecture.activations[i].name
    saturated = SATURATED.get(activation)
    W = model.parameters.weights[i].astype(np.float64)
    norm, weight_norm = float(np.linalg.norm(dW)), float(np.linalg.norm(W))
    if model.architecture.reduction == "sum":
        norm /= rows  # as the learning rate has to be chosen for the batch size anyway, compare the mean
    return LayerDiagnosis(
        layer=i + 1,
        activation=activation,
        units=a.shape[1],
        mean=float(a.mean()),
        spread=float(a.std()),
        dead=int((a <= 0).all(axis=0).sum()) if activation == "relu" else 0,
        saturated=int((saturated(a).mean(axis=0) >= SATURATED_ROWS).sum()) if saturated else 0,
        delta=_rms(delta),
        gradient_norm=norm,
        weight_norm=weight_norm,
        ratio=norm / weight_norm if weight_norm else (math.inf if norm else 0.0),
    )


# ---- advice -----------------------------------------------------------------------------------------------


def _scaling(x: Array, y: Array) -> list[str]:
    """What is to be scaled, if anything is: not what has a reasonable size already."""
    return [
        f"scale the {name} (their root mean square is {_rms(values):.2g})"
        for name, values in (("inputs", x), ("targets", y))
        if not _rms(values) <= WELL_SCALED
    ]


def _and(*advice: str) -> str:
    return " and ".join(filter(None, (", ".join(advice[:-1]), advice[-1])))


def _initial(model: Network) -> str:
    """How to get weights of the right size, where that has not been asked for."""
    return "" if model.architecture.init == "auto" else " (init='auto')"


# ---- verdicts ---------------------------------------------------------------------------------------------


def _not_finite(z: list[Array], scaling: list[str]) -> list[str]:
    for i, values in enumerate(z, 1):
        if not np.isfinite(values).all():
            return [
                f"numbers overflow in layer {i}: {int((~np.isfinite(values)).sum())} of its {values.size} "
                f"pre-activations are NaN or infinite; {_and(*scaling, 'use a smaller learning rate')}"
            ]
    return []


def _dead(layers: list[LayerDiagnosis], rows: int, scaling: list[str]) -> list[str]:
    # With few rows a healthy unit is off in all of them by chance: half of the units with one row, and so on.
    least = min(1.0, DEAD_SHARE + 0.75 * 0.5 ** (rows - 1))
    verdicts = []
    for s in layers:
        if s.dead_share >= least:
            passes = "; no gradient passes this layer" if s.dead == s.units else ""
            verdicts.append(
                f"layer {s.layer}: {s.dead} of {s.units} units are dead: their ReLU is 0 for every one of "
                f"the {rows} rows, so they do not learn{passes}; "
                + _and(*scaling, "use a smaller learning rate", "check the biases")
            )
    return verdicts


def _saturated(hidden: list[LayerDiagnosis], scaling: list[str]) -> list[str]:
    return [
        f"layer {s.layer}: {s.saturated} of {s.units} units are saturated: their {s.activation} is flat for "
        f"nearly every row, so hardly any gradient passes; {_and(*scaling, 'use smaller weights')}"
        for s in hidden
        if s.saturated_share >= SATURATED_SHARE
    ]


def _wrong_outputs(model: Network, y_pred: Array, Y: Array) -> list[str]:
    output = model.architecture.activations[-1].name
    if model.architecture.loss.name != "mse" or output not in SATURATED:
        return []
    share = float((SATURATED[output](y_pred) & (np.abs(y_pred - Y) > 0.5)).mean())
    if share < WRONG_SHARE:
        return []
    return [
        f"output layer: {share:.0%} of the outputs are saturated at the wrong value, where mse has almost no "
        "gradient; use smaller initial weights or a smaller learning rate, check that targets are within the "
        f"{output}'s range, or use loss='binary_crossentropy'"
    ]


def _activations(model: Network, layers: list[LayerDiagnosis], input_size: float) -> list[str]:
    """Signals on their way up. A layer's size is its root mean square, its signal the spread."""
    for s in layers[:-1]:
        if math.hypot(s.mean, s.spread) > EXPLODED * max(1.0, input_size):
            return [
                f"activations explode from layer {s.layer} up: there they are "
                f"{math.hypot(s.mean, s.spread):.2g} in size (root mean square), the inputs "
                f"{input_size:.2g}; use smaller weights{_initial(model)}"
            ]
    for s in layers[:-1]:
        if s.activation != "sigmoid" and s.dead < s.units and s.spread < VANISHED * min(1.0, input_size):
            return [
                f"the signal vanishes from layer {s.layer} up: its activations vary by {s.spread:.1e} only, "
                f"the inputs are {input_size:.2g} in size; use larger weights{_initial(model)}"
            ]
    return []


def _exploding_gradients(layers: list[LayerDiagnosis], scaling: list[str]) -> list[str]:
    """Error signals on their way down, compared with the output layer's, and gradients with the weights."""
    top = layers[-1].delta
    exploded = [s for s in layers if s.delta > EXPLODED * top > 0]
    # not the ratio to weights that are all zero
    steep = [s for s in layers if s.weight_norm > 0 and not s.ratio <= GRADIENT_TO_WEIGHT]
    if exploded:
        s = exploded[-1]
        return [
            f"gradients explode from layer {s.layer} down: the error signal is {s.delta / top:.1e} times "
            "that of the output layer; use smaller weights or fewer layers"
        ]
    if steep:
        s = steep[0]
        which = ", ".join(str(s.layer) for s in steep)
        cure = _and(*scaling) + ", or use" if scaling else "use"
        return [
            f"gradients explode: in layer {which} the gradient is up to {max(s.ratio for s in steep):.1e} "
            f"times as long as the weights, so that a step overshoots; {cure} a much smaller learning rate"
        ]
    return []


def _vanishing_gradients(model: Network, layers: list[LayerDiagnosis]) -> list[str]:
    """The same where they get smaller."""
    top, architecture = layers[-1].delta, model.architecture
    # A layer without any signal because all units above it are dead has had its verdict.
    vanished = [s for s in layers if 0 < s.delta < VANISHED * top]
    if not vanished:
        return []
    s = vanished[-1]
    cures = ["fewer layers"]
    cures += ["ReLU"] if s.activation in SATURATED else []
    cures += ["init='auto'"] if architecture.init != "auto" else []
    cures += ["layer_norm=True"] if not architecture.layer_norm else []
    return [
        f"gradients vanish from layer {s.layer} down: the error signal is {s.delta / top:.1e} of that of "
        f"the output layer, so these layers hardly learn; use {' or '.join(cures)}"
    ]


def _symmetric(model: Network) -> list[str]:
    return [
        f"layer {i}: all units have identical weights and will stay identical (symmetry); use random weights"
        for i in symmetric_layers(model)
    ]
