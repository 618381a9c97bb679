"""Memory: nothing is allocated in a step, and a training takes what it should."""

from dataclasses import replace

import numpy as np
import pytest
from processes import on_linux, python

import fastbp
import fastbp.reference
from fastbp.engine.kernels.optimizers import L2
from fastbp.engine.memory import Design
from fastbp.engine.plan import Plan
from fastbp.inputs.samples import Samples
from fastbp.network.backend import Steps


def test_no_allocation_per_step():
    """A chunk of steps needs memory for its tables (settings and losses), and nothing more for each step."""
    import tracemalloc

    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((64, 20)).astype(np.float32), rng.random((64, 3)).astype(np.float32)
    peaks = {}
    model = fastbp.MLP([20, 30, 3], seed=0)
    for optimizer in (fastbp.SGD(0.01), fastbp.Adam()):
        state = optimizer.state(model.parameters.owner, model.n_parameters, model.dtype)
        for steps in (4, 4, 4004):
            losses = np.empty(steps)
            tracemalloc.start()
            model.backend.train(Steps(Samples(X, Y, 3), None, 0, steps, 16), optimizer, state, losses)
            peaks[steps] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        # a handful of temporary columns of 8 bytes, ten settings of 4
        assert peaks[4004] - peaks[4] < 4000 * 8 * 16


MEMORY = """
import sys
import numpy as np
import fastbp

def megabytes(what):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(what)) / 1024

sizes, rows, batch = eval(sys.argv[1]), 2000, 32
def make(sizes):
    model = fastbp.MLP(sizes, seed=0)
    X = np.zeros((rows, sizes[0]), np.float32)
    Y = np.zeros((rows, sizes[-1]), np.float32)
    return model, X, Y
def fit(model, X, Y):
    model.fit(X, Y, epochs=1, batch_size=batch, optimizer=fastbp.SGD(1e-6), progress=False)
fit(*make([300] * len(sizes)))  # compile, for teams, too
small = megabytes("VmRSS")
model, X, Y = make(sizes)
data = (X.nbytes + Y.nbytes) / 2**20
with open("/proc/self/clear_refs", "w") as f:
    f.write("5")  # forget the peak so far
X.fill(1), Y.fill(0.5)
fit(model, X, Y)
parameters = model.parameters.flat.nbytes / 2**20
activations = 2 * 4 * batch * sum(sizes[1:]) / 2**20  # and deltas
print((megabytes("VmHWM") - small - data - activations) / parameters)
"""


@pytest.mark.slow
@on_linux
@pytest.mark.parametrize("sizes", [[3000, 3000, 500], [1500] * 6], ids=["one hidden layer", "deep"])
def test_memory_of_a_fit(sizes):
    """Beyond data and activations: the parameters, packed, and transposed for the backward pass (not the
    first layer's)."""
    times = float(python("-c", MEMORY, sizes, NUMBA_NUM_THREADS="2"))
    assert times < 3, f"the parameters {times:.2f} times"


def test_a_plan_takes_other_penalties_only_if_it_has_one():
    design = Design((3, 4, 1), ("relu", "identity"), "mse", np.dtype("float32"), "sgd", 8, "train")
    penalised = replace(design, rule="sgd" + L2, l2=0.1)
    plan = Plan(penalised)
    assert plan.can_be(replace(penalised, l2=0.5)) and not plan.can_be(design)
    assert not plan.can_be(replace(penalised, l2=0.5, batch=9))
    assert Plan(design).can_be(design) and not Plan(design).can_be(replace(design, l2=0.1))


@pytest.mark.parametrize("sizes", [(32, 64, 1), (19, 45, 7), (64, 128, 10), (20, 64, 64, 30)])
def test_panels_of_short_steps_are_apart(sizes):
    """A core prefetches up to 20 lines beyond what it reads: there is nothing that another worker writes."""
    design = Design(sizes, ("relu",) * (len(sizes) - 1), "mse", np.dtype(np.float32), "add", 32, "train")
    plan = Plan(design)
    for i, layer in enumerate(plan.layers):
        rows = layer.fan_out if layer.narrow else design.rounded[i] + 1
        assert layer.W.panel >= rows * design.vector + 20 * 64
        if not layer.narrow:
            assert layer.blocks.group_bytes >= 32 * layer.blocks.row + 20 * 64
    assert replace(design, layer_sizes=(4, 32, 1), activations=("relu", "relu")).apart(1) == 0
