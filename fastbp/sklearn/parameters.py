"""Which values the arguments of the estimators' constructors may have.

scikit-learn checks them when `fit` is called, not before, and names the parameter, the class, what is
expected and what was given. The errors here are of that kind: a ValueError that is a TypeError as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from fastbp import activations, losses
from fastbp.checks import shown

# scikit-learn's names for activations, and fastbp's.
ACTIVATIONS = {"logistic": "sigmoid"}
SOLVERS = ("lbfgs", "sgd", "adam")
STOCHASTIC = ("sgd", "adam")
LEARNING_RATES = ("constant", "invscaling", "adaptive")


class InvalidParameterError(ValueError, TypeError):
    """A parameter of an estimator whose type or value is not one of those that it may have."""


# What is expected, in words, and whether a value is that.
Constraint = tuple[str, Callable[[Any], bool]]


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, (bool, np.bool_))


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, (bool, np.bool_))


def _number(low: float, high: float = math.inf, brackets: str = "[)") -> Constraint:
    def fits(value: Any) -> bool:
        above = low <= value if brackets[0] == "[" else low < value
        return bool(above and (value <= high if brackets[1] == "]" else value < high))

    where = f"{brackets[0]}{low:g}, {high:g}{brackets[1]}"
    return f"a float in the range {where}", lambda value: _is_real(value) and fits(value)


def _count(low: int) -> Constraint:
    return f"an int in the range [{low}, inf)", lambda value: _is_integer(value) and value >= low


def _either(*constraints: Constraint) -> Constraint:
    words = [expected for expected, _ in constraints]
    return " or ".join(words), lambda value: any(fits(value) for _, fits in constraints)


def _one_of(names: Iterable[str]) -> Constraint:
    known = sorted(names)
    listed = ", ".join(map(repr, known))
    return f"a str among {{{listed}}}", lambda value: isinstance(value, str) and value in known


_FLAG: Constraint = ("True or False", lambda value: isinstance(value, (bool, np.bool_)))
_NONE: Constraint = ("None", lambda value: value is None)
_INFINITY: Constraint = ("inf", lambda value: _is_real(value) and value == math.inf)
_RANDOM: Constraint = (
    "None, an int from 0 to 2**32 - 1 or a numpy.random.RandomState",
    lambda value: (
        value is None
        or isinstance(value, np.random.RandomState)
        or (_is_integer(value) and 0 <= value < 1 << 32)
    ),
)


def _is_list(value: object) -> bool:
    return hasattr(value, "__len__") or hasattr(value, "__iter__")


_ACTIVATION = _one_of({*activations.ACTIVATIONS, *ACTIVATIONS})
_ACTIVATIONS: Constraint = (
    "a list of them, one for each hidden layer",
    lambda value: isinstance(value, (list, tuple)) and all(map(_ACTIVATION[1], value)),
)
_LAYERS: Constraint = ("a list of ints", lambda value: not isinstance(value, str) and _is_list(value))

CONSTRAINTS: Mapping[str, Constraint] = {
    "hidden_layer_sizes": _either(_LAYERS, _count(1)),
    "activation": _either(_ACTIVATION, _ACTIVATIONS),
    "solver": _one_of(SOLVERS),
    "alpha": _number(0),
    "batch_size": _either(_one_of(["auto"]), _count(1)),
    "learning_rate": _one_of(LEARNING_RATES),
    "learning_rate_init": _number(0, brackets="()"),
    "power_t": _number(0),
    "max_iter": _count(1),
    "shuffle": _FLAG,
    "random_state": _RANDOM,
    "tol": _number(0),
    "verbose": _either(_FLAG, _count(0)),
    "warm_start": _FLAG,
    "momentum": _number(0, 1, "[]"),
    "nesterovs_momentum": _FLAG,
    "early_stopping": _FLAG,
    "validation_fraction": _number(0, 1),
    "beta_1": _number(0, 1),
    "beta_2": _number(0, 1),
    "epsilon": _number(0, brackets="()"),
    "n_iter_no_change": _either(_count(1), _INFINITY),
    "max_fun": _count(1),
    "layer_norm": _FLAG,
    "threads": _either(_NONE, _count(1)),
    "progress": _FLAG,
}


def check(estimator: str, given: Mapping[str, Any]) -> None:
    """InvalidParameterError for the first of the parameters given that has no value it may have."""
    for name, (expected, fits) in CONSTRAINTS.items():
        if name in given and not fits(given[name]):
            raise refused(estimator, name, expected, given[name])


def refused(estimator: str, name: str, expected: str, given: object) -> InvalidParameterError:
    """The error for a value that a parameter may not have."""
    return InvalidParameterError(
        f"The {name!r} parameter of {estimator} must be {expected}. Got {shown(given)} instead."
    )


def layer_sizes(given: Any) -> list[int]:
    """`hidden_layer_sizes` as a list of ints; InvalidParameterError for widths that are not at least 1."""
    sizes = list(given) if hasattr(given, "__iter__") else [given]
    for i, size in enumerate(sizes):
        if not _is_integer(size) or size < 1:
            raise InvalidParameterError(
                f"hidden_layer_sizes must be > 0, got {shown(sizes)}: {shown(size)} at {i}"
            )
    return [int(size) for size in sizes]


# ---- losses ------------------------------------------------------------------------------------------------

# Names that scikit-learn has for losses of quantities, and fastbp's.
LOSSES = {"squared_error": "mse", "absolute_error": "mae"}


class Output(NamedTuple):
    """What the last layer is for: its activation in scikit-learn's words and in fastbp's, fastbp's loss."""

    activation: str
    output: str
    loss: str


def output_of_regressor(estimator: str, loss: object) -> Output:
    """For quantities; InvalidParameterError for a loss that is none of theirs."""
    if loss == "poisson":
        return Output("exp", "exp", "poisson")
    found = _loss(LOSSES.get(loss, loss) if isinstance(loss, str) else loss)
    if found is None or found.kind not in ("mse", "mae", "huber", "pinball"):
        raise refused(
            estimator,
            "loss",
            "'squared_error', 'poisson', 'absolute_error' or a loss of fastbp's for quantities: 'mse', "
            "'mae', 'huber', 'huber(0.5)', 'pinball(0.9)'",
            loss,
        )
    return Output("identity", "identity", found.name)


def output_of_classifier(estimator: str, loss: object, multiclass: bool) -> Output:
    """For classes, or sets of labels; InvalidParameterError for a loss that is none of theirs.

    Quantities' losses compare probabilities with zeros and ones; "hinge" has scores instead of probabilities.
    """
    activation, output = ("softmax", "softmax") if multiclass else ("logistic", "sigmoid")
    usual = "categorical_crossentropy" if multiclass else "binary_crossentropy"
    found = _loss(usual if loss in (None, "log_loss") else loss)
    if found is not None and found.targets_are_signs:
        return Output("identity", "identity", found.name)
    fits = found is not None and found.kind in (usual, "mse", "mae", "huber")
    if not fits:
        raise refused(
            estimator,
            "loss",
            f"None, 'log_loss', {usual!r}, 'hinge', 'mse', 'mae' or 'huber' for "
            + ("three classes and more" if multiclass else "two classes or sets of labels"),
            loss,
        )
    assert found is not None
    return Output(activation, output, found.name)


def _loss(name: object) -> losses.Loss | None:
    """fastbp's loss of that name, or None."""
    if not isinstance(name, str):
        return None
    try:
        return losses.get(name)
    except (ValueError, TypeError):
        return None
