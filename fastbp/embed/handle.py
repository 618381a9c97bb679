"""What compiled code holds of a model: the address of an embedded network that lives as long as the model."""

from __future__ import annotations

import numpy as np

from fastbp.engine.entries import embedded
from fastbp.engine.entries.embedded import EmbeddedNetwork
from fastbp.engine.memory import FEW_ROWS
from fastbp.engine.plan import Plan
from fastbp.inputs.sources import Rows
from fastbp.network.compiled import FORWARD_ROWS, CompiledBackend
from fastbp.network.network import Network
from fastbp.network.plans import Kind


def make(model: Network) -> EmbeddedNetwork:
    """The model's parameters with plans for each slot. TypeError for a model that computes in NumPy."""
    backend = model.backend
    if not isinstance(backend, CompiledBackend):
        raise TypeError(
            "compiled code needs a model of fastbp.MLP: one of fastbp.reference computes in NumPy"
        )
    parameters = model.parameters.flat

    def plan(rows: int) -> Plan:
        made = Plan(backend.design(Kind("predict", "add", rows)))
        made.bind_parameters(parameters)
        rounded = model.reader.rounded_scaling
        if rounded is not None:
            sample = np.zeros((1, model.architecture.inputs), model.architecture.dtype)
            made.convert_rows(Rows(sample, sample.dtype, rounded))
        return made

    count = embedded.slots()
    few, many = ([plan(rows) for _ in range(count)] for rows in (FEW_ROWS, FORWARD_ROWS))
    for for_few in few:
        for_few.read_in_place()
    return EmbeddedNetwork(few, many, parameters)
