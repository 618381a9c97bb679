"""Hidden layers whose units are all alike: they compute the same, get the same gradient, and stay so."""

from __future__ import annotations

import numpy as np

from fastbp import checks
from fastbp.network.network import Network


def symmetric_layers(model: Network) -> list[int]:
    """The hidden layers, counted from 1, whose units are alike and will be after any training."""
    return [
        layer
        for layer, W in enumerate(model.parameters.weights[:-1], 1)
        if W.shape[1] > 1 and W.item(0) == W.item(1) and _is_symmetric(model, layer)
    ]


def _is_symmetric(model: Network, layer: int) -> bool:
    """Whether all units of a layer of several are, of which the first two have the same first weight."""
    weights, biases, gains = model.parameters.weights, model.parameters.biases, model.parameters.gains
    W, b, W_next = weights[layer - 1], biases[layer - 1], weights[layer]
    if not np.array_equal(W[:, 0], W[:, 1]):
        return False
    if not ((W[:, :1] == W).all() and (b == b[0]).all()):
        return False
    if gains and not (gains[layer - 1] == gains[layer - 1][0]).all():
        return False
    # Alike so far. They stay alike if they are weighted alike, or if no gradient comes through at all.
    silent = model.architecture.activations[layer - 1].name == "relu" and not W.any() and b[0] <= 0
    return bool(silent or (W_next == W_next[:1]).all())


def warn_if_symmetric(model: Network) -> None:
    """Warn about such layers, once since the parameters were drawn."""
    parameters = model.parameters
    if parameters.symmetry_reported:
        return
    layers = symmetric_layers(model)
    if not layers:
        return
    parameters.symmetry_reported = True
    zero = all(not parameters.weights[i - 1].any() for i in layers)
    which = f"layer {layers[0]}" if len(layers) == 1 else "layers " + ", ".join(map(str, layers))
    checks.warn(
        f"the hidden units of {which} will stay identical: their weights are all "
        f"{'zero' if zero else 'the same'}, so all of them compute the same and get the same gradient "
        "(symmetry); start from random weights"
    )
