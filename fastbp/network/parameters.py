"""A network's parameters: one flat array, and the weights, biases and gains that are views of it."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp import checks, initializers
from fastbp.engine.compile.arrays import data_at
from fastbp.network import layout
from fastbp.network.architecture import Architecture
from fastbp.optimizer_base import Owner
from fastbp.pages import LINE, aligned

Array = NDArray[Any]


class Parameters:
    """All numbers that training changes, in the order of `layout.shapes`.

    flat : all of them, (n_parameters,), with `slack` bytes of zeros behind that may be read as well.
    address : where it lies in memory.
    weights, biases, gains : lists of views of `flat`, in which users may write, and in whose place they may
        put other arrays; `adopt` takes the values over before anything is computed. They are the same lists
        for life: compiled code knows where they are.
    held : each of the lists, with the views that belong there.
    owner : what optimizers keep their states of these parameters under; another one after `draw`.
    symmetry_reported : whether it was said that units of a layer are all alike, see `inspection.symmetry`.
    version : grows whenever `changed` is called: what was prepared from an older one is stale.
    """

    def __init__(self, architecture: Architecture, slack: int = 0) -> None:
        self.arrays, self._slack = architecture.arrays, slack
        size, dtype = layout.size(self.arrays), architecture.dtype
        if size * dtype.itemsize + slack + LINE > np.iinfo(np.intp).max:
            raise ValueError(
                f"layer_sizes {list(architecture.layer_sizes)} need {size:,} parameters, "
                "more than memory can hold"
            )
        self._allocate(size, dtype)
        self.version, self.symmetry_reported, self.owner = 0, False, Owner()

    def _allocate(self, size: int, dtype: np.dtype[Any]) -> None:
        nbytes = size * dtype.itemsize
        # They begin with a cache line: vectors that are read in place may be one, too.
        self._flat = aligned(nbytes + self._slack)[:nbytes].view(dtype)
        self.address = data_at(self._flat)
        self._split = self.split(self._flat)
        self._depth = len(self._split[0])
        self.views: list[Array] = [array for kind in self._split for array in kind]
        self._shaped = [(view, view.shape) for view in self.views]
        self.weights, self.biases, self.gains = map(list, self._split)
        self.held = list(zip((self.weights, self.biases, self.gains), self._split, strict=True))

    def _restore_views(self) -> None:
        for held, views in self.held:
            held[:] = views

    @property
    def flat(self) -> Array:
        """All numbers: to write into, never another array, as compiled code knows where these lie."""
        return self._flat

    def __len__(self) -> int:
        return self.flat.size

    def __getstate__(self) -> dict[str, Any]:
        self.adopt()
        kept = ("arrays", "_slack", "flat", "symmetry_reported", "owner")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = state.pop("flat")
        vars(self).update(state)
        self.version = 0
        self._allocate(values.size, values.dtype)
        self._flat[...] = values

    # ---- views ----------------------------------------------------------------------------------------

    def split(self, flat: Array) -> tuple[list[Array], list[Array], list[Array]]:
        """Views of an array laid out like these parameters: weights, biases and gains."""
        of_kind: dict[str, list[Array]] = {"W": [], "b": [], "g": []}
        for name, array in layout.views(flat, self.arrays).items():
            of_kind[name[0]].append(array)
        return of_kind["W"], of_kind["b"], of_kind["g"]

    def named(self) -> dict[str, Array]:
        """The arrays by their names: W1, b1, ..."""
        return layout.views(self.flat, self.arrays)

    def names(self) -> Iterator[str]:
        """What users call each of the views."""
        for kind, arrays in zip(("weights", "biases", "gains"), self._split, strict=True):
            yield from (f"{kind}[{i}]" for i in range(len(arrays)))

    # ---- what others may have written ------------------------------------------------------------------

    def adopt(self) -> None:
        """Copy what was put in the place of an array into the parameters, and put that back.

        ValueError or TypeError, before anything is copied, for what does not fit.
        """
        weights, biases, gains = self.weights, self.biases, self.gains
        given, depth = (*weights, *biases, *gains), self._depth
        views = self.views
        if (
            len(weights) == len(biases) == depth
            and len(given) == len(views)
            and all(map(operator.is_, given, views))
        ):
            return  # the usual case, decided quickly
        if len(weights) != depth or len(biases) != depth:
            raise ValueError(
                f"the model has {depth} layers, but {len(weights)} weights and {len(biases)} biases"
            )
        if len(gains) != len(self._split[2]):
            raise ValueError(f"the model has {len(self._split[2])} normalised layers, but {len(gains)} gains")
        replaced = [
            (name, array, view)
            for name, array, view in zip(self.names(), given, views, strict=True)
            if array is not view
        ]
        taken = []  # copies of what may be part of the parameters: two may have changed places
        for name, array, view in replaced:
            values = checks.as_floats(name, array, self.flat.dtype)
            if values.shape != view.shape:
                raise ValueError(f"{name} has shape {values.shape}, expected {view.shape}")
            taken.append(values.copy() if np.may_share_memory(values, self._flat) else values)
        for values, (_, _, view) in zip(taken, replaced, strict=True):
            view[...] = values
        self._restore_views()
        self.changed()

    def put(self, weights: Sequence[Array], biases: Sequence[Array]) -> None:
        """Copy these into the parameters; errors as `adopt`."""
        self.weights[:], self.biases[:] = weights, biases
        self.adopt()

    def changed(self) -> None:
        """Say that the numbers, or an optimizer's state of them, may have been written to."""
        self.version += 1

    def replace(self, flat: Array) -> None:
        """Take over these values."""
        self.flat[...] = flat
        self.changed()

    def require_updatable(self) -> None:
        """ValueError if an array was made read-only, or given another shape in place."""
        for view, shape in self._shaped:
            if view.shape != shape or not view.flags.writeable:
                break
        else:
            return  # the usual case, decided quickly
        for name, (view, shape) in zip(self.names(), self._shaped, strict=True):
            checks.require_updatable(name, view)
            if view.shape != shape:
                raise ValueError(f"{name} has shape {view.shape}, expected {shape}")

    def are_finite(self) -> bool:
        """Whether there is no NaN and no infinity."""
        with np.errstate(all="ignore"):
            return math.isfinite(self.flat.sum()) or bool(np.isfinite(self.flat).all())

    def draw(self, architecture: Architecture, rng: np.random.Generator) -> None:
        """Initial values: weights and biases as `init` says, gains 1. (Normalised layers' biases are 0.)"""
        self._restore_views()
        self.flat[...] = 0
        output = architecture.activations[-1].name
        normalised = len(self.gains)
        for layer, activation in enumerate(architecture.activations):
            W, b = self.weights[layer], self.biases[layer]
            init = initializers.chosen(architecture.init, activation.name, output)
            W[...] = initializers.weights(init, len(W), W.shape[1], rng)
            if layer >= normalised:
                b[...] = initializers.biases(init, len(W), W.shape[1], rng)
        for g in self.gains:
            g[...] = 1
        self.symmetry_reported, self.owner = False, Owner()
        self.changed()
