"""What a network is, before any number of it: what the model's constructor is told, checked once."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import activations, checks, initializers, losses
from fastbp.network import layout

Array = NDArray[Any]

# Rows of a large data set that are evaluated at once (predict, loss): bounds the memory and the wait.
EVALUATE_MULTIPLY_ADDS = 20_000_000
# Seeds are below that: more bits than a SeedSequence has would say nothing.
SEED_LIMIT = 1 << 128
REDUCTIONS = ("mean", "sum", "weighted_mean")
BFLOAT16 = "bfloat16"


@lru_cache(4096)
def _known(kind: Hashable) -> Hashable:
    """The first one of those that are equal."""
    return kind


class Architecture:
    """Layers, loss, and how training treats them; the arguments, and the errors, are those of `MLP`.

    It never changes: what depends on it (parameters, prepared plans, optimizer state) may rely on that.

    Attributes
    ----------
    layer_sizes, hidden, output, reduction, init, precision, seed, threads, max_norm, input_scale,
    input_offset, input_noise, layer_norm, l2 : as given, in plain Python types.
    dtype : np.dtype, float32 or float64.
    dropout : a probability for each hidden layer.
    loss, activations : the definitions (`Loss`, and an `Activation` for each layer).
    scaling : (scale, offset), both (inputs,) in float64, or None where inputs are taken as they are.
    shapes : (fan_in, fan_out) of every layer.
    is_noisy : whether training draws random numbers at each step.
    alike : equal, and mostly the same object, for architectures that train and predict alike: all but seed
        and threads.
    arrays : names and shapes of the parameter arrays in their order, see `layout`.
    """

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        hidden: str | Sequence[str],
        output: str,
        loss: str,
        reduction: str,
        init: str,
        dtype: DTypeLike,
        seed: int | None,
        threads: int | None,
        max_norm: float | None,
        input_scale: ArrayLike,
        input_offset: ArrayLike,
        dropout: float | Sequence[float],
        input_noise: float,
        layer_norm: bool,
        l2: float = 0.0,
        precision: str | None = None,
    ) -> None:
        self.layer_sizes = _widths(layer_sizes)
        self.hidden, self.output = _hidden_of_layers(hidden, self.layer_sizes), output
        activations.output(output)
        self.loss = losses.get(loss)
        _check_output(self.layer_sizes, output, self.loss)
        self.reduction = checks.known_name("reduction", reduction, REDUCTIONS)
        self.init = initializers.check(init)
        self.dtype = _float_type(dtype)
        self.precision = _precision(precision, self.dtype)
        self.seed = _seed(seed)
        self.threads = None if threads is None else checks.count("threads", threads)
        self.max_norm = None if max_norm is None else checks.positive("max_norm", max_norm, "None")
        self.input_scale = checks.number_or_one_each("input_scale", input_scale, self.inputs)
        self.input_offset = checks.number_or_one_each("input_offset", input_offset, self.inputs)
        self.scaling = self._scaling()
        self.dropout = _dropout_of_layers(dropout, self.layer_sizes)
        self.input_noise = checks.number("input_noise", input_noise, low=0)
        if self.input_noise > float(np.finfo(np.float32).max) / 8:
            raise ValueError(f"input_noise is {self.input_noise:g}, which is too large for {self.dtype}")
        self.layer_norm = _layer_norm(layer_norm, self.layer_sizes)
        self.l2 = checks.number("l2", l2, low=0)
        self._derive()

    def __setattr__(self, name: str, value: object) -> None:
        if "arrays" in vars(self):  # the last one that the constructor sets
            raise AttributeError(f"{name} is fixed when a model is made: MLP(..., {name}=...)")
        super().__setattr__(name, value)

    def _derive(self) -> None:
        self.shapes = list(itertools.pairwise(self.layer_sizes))
        hidden = self.hidden
        names = [hidden] * (len(self.shapes) - 1) if isinstance(hidden, str) else hidden
        self.activations = [activations.OUTPUTS[name] for name in (*names, self.output)]
        self.is_noisy = self.input_noise > 0 or any(self.dropout)
        self.alike = _known(self._kind())
        self.arrays = layout.shapes(self.layer_sizes, self.layer_norm)

    def _scaling(self) -> tuple[Array, Array] | None:
        if self.input_scale == 1 and self.input_offset == 0:
            return None
        scale, offset = (np.full(self.inputs, v, np.float64) for v in (self.input_scale, self.input_offset))
        largest = float(np.finfo(self.dtype).max)
        for name, values in (("input_scale", scale), ("input_offset", offset)):
            if not (np.abs(values) <= largest).all():
                raise ValueError(f"{name} is too large for {self.dtype}")
        return scale, offset

    @property
    def inputs(self) -> int:
        """The first width."""
        return self.layer_sizes[0]

    @property
    def outputs(self) -> int:
        """The last width."""
        return self.layer_sizes[-1]

    @property
    def n_parameters(self) -> int:
        """The number of weights, biases and gains."""
        return layout.size(self.arrays)

    def _kind(self) -> Hashable:
        scaling = self.scaling and tuple(part.tobytes() for part in self.scaling)
        layers = self.layer_sizes, tuple(self.activation_names), self.layer_norm, tuple(self.dropout)
        training = self.loss.name, self.reduction, self.max_norm, self.l2, self.input_noise
        return (*layers, *training, self.dtype, self.precision, scaling)

    @property
    def activation_names(self) -> list[str]:
        """The name of each layer's activation."""
        return [activation.name for activation in self.activations]

    def divisor(self, rows: int, weights: Array | None) -> float:
        """What the sum of a batch's losses, and their gradient, is divided by, as `reduction` says.

        weights : (rows,), or None. 0: the batch has no weight at all, and counts for nothing.
        """
        if self.reduction == "weighted_mean" and weights is not None:
            return float(weights.sum(dtype=np.float64))
        return 1.0 if self.reduction == "sum" else float(rows)

    def row_blocks(self, rows: int) -> list[slice]:
        """So many rows in blocks that are evaluated at once."""
        block = max(1, EVALUATE_MULTIPLY_ADDS // sum(m * n for m, n in self.shapes))
        return [slice(start, min(start + block, rows)) for start in range(0, rows, block)]

    def to_json(self) -> dict[str, Any]:
        """The arguments that make such a model, all of them JSON (`threads`, of the machine, left out)."""
        return {
            "layer_sizes": list(self.layer_sizes),
            "hidden": self.hidden,
            "output": self.output,
            "loss": self.loss.name,
            "reduction": self.reduction,
            "init": self.init,
            "dtype": str(self.dtype),
            "precision": self.precision,
            "seed": self.seed,
            "max_norm": self.max_norm,
            "input_scale": self.input_scale,
            "input_offset": self.input_offset,
            "dropout": self.dropout[0] if len(set(self.dropout)) == 1 else list(self.dropout) or 0.0,
            "input_noise": self.input_noise,
            "layer_norm": self.layer_norm,
            "l2": self.l2,
        }

    @classmethod
    def from_json(cls, arguments: dict[str, Any], threads: int | None = None) -> Architecture:
        """What `to_json` gave, read again. TypeError or ValueError as the constructor."""
        return cls(**arguments, threads=threads)

    def __reduce__(self) -> tuple[Any, ...]:
        # Definitions hold functions, which are found by their names in the process that reads the pickle.
        return Architecture.from_json, (self.to_json(), self.threads)

    def __repr__(self) -> str:
        options = {**self.to_json(), "threads": self.threads}
        for name in ("input_scale", "input_offset"):
            if isinstance(options[name], list) and len(options[name]) > 6:
                options[name] = np.array(options[name])
        sizes = options.pop("layer_sizes")
        with np.printoptions(threshold=6):
            return f"MLP({sizes}, " + ", ".join(f"{k}={v!r}" for k, v in options.items()) + ")"

    def summary(self) -> str:
        """A table of the layers with shapes and parameter counts."""
        rows = [["layer", "activation", "weights", "biases", "gains", "parameters"]]
        for i, ((m, n), activation) in enumerate(zip(self.shapes, self.activations, strict=True), 1):
            has_gains = f"g{i}" in self.arrays
            gains, parameters = f"({n},)" if has_gains else "", (m + 1 + has_gains) * n
            rows.append([str(i), activation.name, f"({m}, {n})", f"({n},)", gains, f"{parameters:,}"])
        if not self.layer_norm:
            rows = [[*row[:4], row[5]] for row in rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        sizes = "-".join(str(n) for n in self.layer_sizes)
        products = f" with products of {self.precision}" if self.precision else ""
        head = f"MLP {sizes}, {self.dtype}{products}, loss {self.loss.name} ({self.reduction})"
        if self.max_norm is not None:
            head += f", max_norm {self.max_norm:g}"
        if self.l2:
            head += f", l2 {self.l2:g}"
        return "\n".join([head, *lines, f"{self.n_parameters:,} parameters"])


# ---- checks that concern an architecture alone -------------------------------------------------------------


def _widths(layer_sizes: object) -> tuple[int, ...]:
    if isinstance(layer_sizes, (str, bytes)) or not isinstance(layer_sizes, (Sequence, np.ndarray)):
        raise TypeError(f"layer_sizes must be a list of integers, got {checks.shown(layer_sizes)}")
    if isinstance(layer_sizes, np.ndarray) and layer_sizes.ndim != 1:
        raise TypeError(f"layer_sizes must be a list of integers, got {checks.shown(layer_sizes)}")
    if len(layer_sizes) < 2:
        raise ValueError(f"layer_sizes is {list(layer_sizes)}, expected two widths or more, inputs first")
    return tuple(checks.count(f"layer_sizes[{i}]", size) for i, size in enumerate(layer_sizes))


def _hidden_of_layers(hidden: object, layer_sizes: Sequence[int]) -> str | list[str]:
    """The name for all hidden layers, or a list of one for each."""
    if isinstance(hidden, str) or not isinstance(hidden, Sequence):
        return activations.hidden(hidden).name  # type: ignore[arg-type]
    layers = len(layer_sizes) - 2
    if len(hidden) != layers:
        raise ValueError(
            f"hidden has {len(hidden)} names, layer_sizes {list(layer_sizes)} has {layers} hidden layers: "
            "hidden must be a name, or one for each hidden layer"
        )
    return [activations.hidden(name).name for name in hidden]


def _check_output(layer_sizes: Sequence[int], output: str, loss: losses.Loss) -> None:
    if loss.output not in (None, output):
        raise ValueError(f"loss={loss.name!r} is defined for output={loss.output!r}, got output={output!r}")
    if loss.of_pairs and layer_sizes[-1] % 2:
        raise ValueError(
            f"loss={loss.name!r} takes a mean and a spread for each target, got {layer_sizes[-1]} "
            f"output{'s' if layer_sizes[-1] > 1 else ''}: use {layer_sizes[-1] + 1}, or another even number"
        )
    if output == "softmax" and layer_sizes[-1] == 1:
        raise ValueError("output='softmax' of one output is always 1: use two outputs, or output='sigmoid'")


def _float_type(dtype: DTypeLike) -> np.dtype[Any]:
    try:
        result: np.dtype[Any] = np.dtype(dtype)
    except Exception:  # NumPy asks unknown objects for their dtype attribute
        raise TypeError(f"dtype is {checks.shown(dtype)}, expected 'float32' or 'float64'") from None
    if result not in (checks.FLOAT32, checks.FLOAT64):
        raise TypeError(f"dtype is {result}, expected 'float32' or 'float64'")
    return result


def _precision(precision: object, dtype: np.dtype[Any]) -> str | None:
    if precision is None:
        return None
    if not isinstance(precision, str) or precision != BFLOAT16:
        raise ValueError(f"precision is {checks.shown(precision)}, expected None or {BFLOAT16!r}")
    if dtype != checks.FLOAT32:
        raise ValueError(
            f"precision={BFLOAT16!r} rounds float32 numbers before they are multiplied, dtype is {dtype}: "
            "use dtype='float32', or precision=None"
        )
    return BFLOAT16


def _seed(seed: object) -> int | None:
    if seed is None:
        return None
    number = checks.count("seed", seed, low=0)
    if number >= SEED_LIMIT:
        raise ValueError(f"seed has {number.bit_length()} bits, expected an integer below 2**128, or None")
    return number


def _layer_norm(layer_norm: object, layer_sizes: Sequence[int]) -> bool:
    if not isinstance(layer_norm, (bool, np.bool_)):
        raise TypeError(f"layer_norm must be True or False, got {checks.shown(layer_norm)}")
    if layer_norm and len(layer_sizes) == 2:
        raise ValueError(
            f"layer_norm is True, but layer_sizes {list(layer_sizes)} has no hidden layer to normalise"
        )
    return bool(layer_norm)


def _dropout_of_layers(dropout: object, layer_sizes: Sequence[int]) -> tuple[float, ...]:
    """The probability for each hidden layer."""
    layers = len(layer_sizes) - 2
    a_list = isinstance(dropout, Sequence) and not isinstance(dropout, (str, bytes))
    if a_list or (isinstance(dropout, np.ndarray) and dropout.ndim):
        assert isinstance(dropout, (Sequence, np.ndarray))
        if len(dropout) != layers:
            raise ValueError(
                f"dropout has {len(dropout)} values, layer_sizes {list(layer_sizes)} has {layers} hidden "
                "layers: dropout must be a number, or one for each hidden layer"
            )
        return tuple(checks.number(f"dropout[{i}]", p, low=0, below=1) for i, p in enumerate(dropout))
    p = checks.number("dropout", dropout, low=0, below=1)
    if p and not layers:
        raise ValueError(
            f"dropout is {p:g}, but layer_sizes {list(layer_sizes)} has no hidden layer to drop units of"
        )
    return (p,) * layers
