"""`fit` warns about targets that the output's activation cannot reach."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fastbp.activations import ACTIVATIONS

X = np.random.default_rng(0).standard_normal((40, 3))
IN_UNITS = np.linspace(20, 445, 40)[:, None]


def fit(module: ModuleType, output: str, Y: Any, **options: Any) -> None:
    loss = options.pop("loss", "mse")
    model = module.MLP([3, 4, 1], output=output, loss=loss, seed=0)
    model.fit(X, Y, epochs=1, optimizer=module.SGD(lr=1e-9), progress=False, **options)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_a_sigmoid_and_targets_in_the_hundreds(module: ModuleType, loss: str) -> None:
    message = "Y has values from 20 to 445, but output='sigmoid' only reaches 0 to 1: .*output='identity'"
    with pytest.warns(UserWarning, match=message) as caught:
        fit(module, "sigmoid", IN_UNITS, loss=loss)
    assert len(caught) == 1


def test_the_warning_points_at_the_call_of_fit(module: ModuleType) -> None:
    model = module.MLP([3, 4, 1], seed=0)
    with pytest.warns(UserWarning, match="only reaches") as caught:
        model.fit(X, IN_UNITS, epochs=1, optimizer=module.SGD(lr=1e-9), progress=False)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_range_is_that_of_the_activation(module: ModuleType, name: str) -> None:
    entry = ACTIVATIONS[name]
    values = entry.value(np.linspace(-40, 40, 100_001))
    for end, outwards in ((entry.low, -1), (entry.high, 1)):
        if not np.isfinite(end):
            fit(module, name, np.full((40, 1), outwards * 1e3))  # no warning
            continue
        assert abs((values.min() if outwards < 0 else values.max()) - end) < 1e-4  # it is reached
        fit(module, name, np.full((40, 1), end + outwards * 1e-3))  # but for rounding: no warning
        with pytest.warns(UserWarning, match=f"output='{name}' only reaches"):
            fit(module, name, np.full((40, 1), end + outwards * 0.5))


def test_targets_stored_in_a_file_or_weighted(module: ModuleType, tmp_path: Path) -> None:
    np.save(tmp_path / "Y.npy", IN_UNITS)
    with pytest.warns(UserWarning, match="from 20 to 445"):
        fit(module, "sigmoid", str(tmp_path / "Y.npy"))
    with pytest.warns(UserWarning, match="from 20 to 445"):
        fit(module, "sigmoid", IN_UNITS, sample_weight=np.full(40, 2.0))
    fit(module, "sigmoid", IN_UNITS / 445, sample_weight=np.full(40, 2.0))  # the weights are no targets


def test_losses_with_targets_of_their_own_say_so_themselves(module: ModuleType) -> None:
    signs = np.sign(X[:, :1])
    fit(module, "tanh", signs, loss="hinge")
    fit(module, "sigmoid", signs, loss="hinge")  # the margin is what counts
    with pytest.raises(ValueError, match=r"needs targets in \[0, 1\]"):
        fit(module, "sigmoid", IN_UNITS, loss="binary_crossentropy")
