"""Single numbers and names: what is taken, and that a refusal names the argument."""

import decimal
import fractions
import re

import numpy as np
import pytest

from fastbp import checks


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layer_sizes": np.array(3.0)}, TypeError, "layer_sizes must be a list of integers, got array(3.)"),
        ({"layer_sizes": np.ones((2, 2), int)}, TypeError, "layer_sizes must be a list of integers"),
        ({"layer_sizes": [3.0, 2]}, TypeError, "layer_sizes[0] must be an integer, got 3.0"),
        ({"hidden": np.array([1, 2])}, TypeError, "hidden must be a name ("),
        ({"output": np.array(["tanh"])}, TypeError, "output must be a name ("),
        ({"loss": ["mse"]}, TypeError, "loss must be a name ("),
        ({"dropout": np.array(3.0)}, ValueError, "dropout is 3.0, expected a number in [0, 1)"),
        ({"dropout": [0.1, 0.2]}, ValueError, "dropout has 2 values"),
        ({"max_norm": np.array([1.0])}, TypeError, "max_norm must be a number or None, got array([1.])"),
        ({"input_scale": np.ma.array([1.0, 2, 3])}, TypeError, "input_scale is a masked array"),
        ({"layer_norm": "no"}, TypeError, "layer_norm must be True or False, got 'no'"),
        ({"dtype": object()}, TypeError, "dtype is <object"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, got 0.5"),
    ],
)
def test_refused_by_the_constructor(module, arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        module.MLP(**{"layer_sizes": [3, 4, 2]} | arguments)


def test_numbers_of_any_kind():
    for value in (0.5, np.float32(0.5), np.array(0.5), fractions.Fraction(1, 2), decimal.Decimal("0.5")):
        assert checks.number("lr", value, low=0) == 0.5
    for value in (True, "0.5", b"1", None, [0.5], np.array([0.5]), 1j, object()):
        with pytest.raises(TypeError, match="lr must be a number, got "):
            checks.number("lr", value, low=0)
    for value in (-1, float("nan"), float("inf"), 10**400):
        with pytest.raises(ValueError, match=r"lr is .*, expected a number finite and at least 0"):
            checks.number("lr", value, low=0)


def test_check_finite_is_a_flag(module):
    model, X = module.MLP([2, 1], seed=0), np.ones((3, 2), np.float32)
    for value in ("no", [True], np.ones(2), None):
        with pytest.raises(TypeError, match="check_finite must be True or False"):
            model.predict(X, check_finite=value)
        with pytest.raises(TypeError, match="check_finite must be True or False"):
            module.forward(X, np.ones((2, 2)), np.ones(2), np.ones((2, 1)), np.ones(1), check_finite=value)
    assert model.predict(X, check_finite=np.True_).shape == (3, 1)


def test_what_was_given_is_shown_in_one_short_line():
    assert checks.shown(np.zeros((2, 2))) == "array([[0., 0.], [0., 0.]])"
    assert len(checks.shown("x" * 10_000)) < 120
