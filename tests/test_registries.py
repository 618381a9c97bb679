"""Whatever has a name is tested: a new activation, loss, optimizer or schedule without tests fails here.

The tests themselves are in the modules imported below: values and derivatives against the definitions in
definitions.py (and PyTorch, where it is), gradients against central differences, engine against reference.
"""

import inspect

import definitions
import engine_bits
import pytest
import rounding_of_steps
import test_gradients
import test_losses
import test_optimizers
import test_schedules
from definitions import DEFINITIONS

import fastbp
import fastbp.reference
from fastbp import optimizers, schedules
from fastbp.activations import ACTIVATIONS, OUTPUTS
from fastbp.cli.train import options
from fastbp.engine import settings
from fastbp.engine.kernels import activations as activations_of_engine
from fastbp.engine.kernels import losses as losses_of_engine
from fastbp.engine.kernels import optimizers as rules_of_engine
from fastbp.formulas import optimizer_steps
from fastbp.losses import LOSSES


def subclasses_in(module, base):
    """The names of the classes that can be used: those of the module below `base`."""
    classes = inspect.getmembers(module, inspect.isclass)
    return {name for name, kind in classes if issubclass(kind, base) and kind is not base}


def missing():
    """What is there and is not tested, as "name: where"."""
    hidden, outputs, losses = (set(column) for column in zip(*test_gradients.COMBINATIONS, strict=True))
    optimizer_names = subclasses_in(optimizers, optimizers.Optimizer)
    tested_schedules = {type(schedule).__name__ for schedule in test_schedules.SCHEDULES}
    # ReduceOnPlateau has tables of its own
    tested_schedules |= {schedules.ReduceOnPlateau.__name__} if test_schedules.PLATEAUS else set()
    cases = [
        ("definition", ACTIVATIONS, DEFINITIONS),
        ("definition", LOSSES, definitions.LOSSES),
        ("definition", optimizer_names, definitions.OPTIMIZERS),
        ("rounding of a step", optimizer_names, {getattr(k, "__name__", k) for k in rounding_of_steps.MOVES}),
        ("engine's formula", ACTIVATIONS, activations_of_engine.ACTIVATIONS),
        ("engine's formula", LOSSES, losses_of_engine.FORMULAS),
        ("engine's formula", optimizer_names, {
            name for name, o in engine_optimizers().items() if o.rule in rules_of_engine.RULES
        }),
        ("reference's step", optimizer_names, optimizer_steps.STEPS),
        ("gradient check as hidden", ACTIVATIONS, hidden),
        ("gradient check as output", OUTPUTS, outputs),
        ("engine bits as output", OUTPUTS, {output for output, _ in engine_bits.OUTPUTS}),
        ("gradient check", LOSSES, losses),
        ("value and torch", LOSSES, test_losses.NAMES),
        ("engine bits", LOSSES, {loss for _, loss in engine_bits.OUTPUTS}),
        ("combination of hidden and loss", {(h, k) for h in ACTIVATIONS for k in LOSSES}, {
            (h, k) for h, _, k in test_gradients.COMBINATIONS
        }),
        ("registry", optimizer_names, optimizers.OPTIMIZERS),
        ("formula and torch", optimizer_names, {name for name, _ in test_optimizers.CASES}),
        ("agreement with the reference", optimizer_names, test_optimizers.PLAIN),
        ("engine bits", optimizer_names, {type(make()).__name__ for make in engine_bits.OPTIMIZERS.values()}),
        ("command line", optimizer_names, options.LEARNING_RATES),
        ("fastbp", optimizer_names, fastbp.__all__),
        ("fastbp.reference", optimizer_names, fastbp.reference.__all__),
        ("schedule", subclasses_in(schedules, schedules.Schedule), tested_schedules),
    ]  # fmt: skip
    return [f"{name}: {where}" for where, there, tested in cases for name in there if name not in tested]


def test_everything_is_tested():
    assert missing() == []


@pytest.mark.parametrize("tested", ["formulas", "options"])
def test_every_rule_of_the_engine_is_tested(tested):
    """An optimizer's options choose its rule: those of the tests choose all that there are."""
    makers = engine_bits.OPTIMIZERS.values()
    if tested == "formulas":
        makers = [lambda n=n, o=o: getattr(fastbp, n)(**o) for n, o in test_optimizers.CASES]
    rules = {settings.rule_of(make()).removesuffix("-limit-l1") for make in makers}
    own = {rule for rule in rules_of_engine.RULES if not rule.endswith(("-limit-l1", rules_of_engine.L2))}
    assert own - rules == {"sum", "gradient"} & own


def engine_optimizers():
    """One of each kind that can be made from its definition's options."""
    return {
        name: kind(**definitions.OPTIMIZERS[name].plain)
        for name, kind in optimizers.OPTIMIZERS.items()
        if name in definitions.OPTIMIZERS
    }


@pytest.mark.parametrize("label", engine_bits.OPTIMIZERS)
def test_rule_and_optimizer_agree(label):
    """Arrays of state, and the names of the coefficients: what one offers, the other reads."""
    optimizer = engine_bits.OPTIMIZERS[label]()
    rule = rules_of_engine.RULES[optimizer.rule]
    assert rule.states == optimizer.buffers
    assert set(rule.coefficients) == set(optimizer.coefficients(0, 3))


def test_something_new_is_noticed(monkeypatch):
    """A test of the test."""
    monkeypatch.setitem(ACTIVATIONS, "swish", ACTIVATIONS["silu"])
    monkeypatch.setitem(LOSSES, "log_cosh", LOSSES["mse"])
    monkeypatch.setattr(optimizers, "Lion", type("Lion", (fastbp.SGD,), {}), raising=False)
    monkeypatch.setattr(schedules, "Cyclic", type("Cyclic", (schedules.Constant,), {}), raising=False)
    noticed = {line.partition(": ")[0] for line in missing()}
    assert {"swish", "log_cosh", "Lion", "Cyclic"} <= noticed
