"""History: its columns, as plain values and back, in pandas."""

import json
import sys
import tracemalloc

import numpy as np
import pytest

import fastbp
from fastbp import schedules


def fitted(module, **options):
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 3)), rng.random((50, 2))
    model = module.MLP([3, 4, 2], seed=0)
    return model.fit(
        X,
        Y,
        **{"epochs": 4, "batch_size": 20, "validation_data": (X, Y), "metrics": "mae"} | options,
    )


def test_columns(module):
    history = fitted(module, optimizer=module.SGD(schedules.Exponential(0.1, 0.9)))
    assert history.names == ("loss", "lr", "epoch_seconds", "val_loss", "val_mae")
    for values in (
        history.loss,
        history.val_loss,
        history.lr,
        history.epoch_seconds,
        history.val_metrics["mae"],
    ):
        assert values.shape == (4,)
        assert values.dtype == np.float64
    np.testing.assert_allclose(history.lr, 0.1 * 0.9 ** np.array([2.0, 5, 8, 11]))  # of the epoch's last step
    assert (history.epoch_seconds > 0).all()
    assert history.epoch_seconds.sum() <= history.seconds
    assert history.last("val_mae") == history.val_metrics["mae"][-1]
    with pytest.raises(ValueError, match="unknown name 'val_los', expected one of 'val_loss'"):
        history.last("val_los")
    assert history.best_epoch is None
    assert "val_mae=" in repr(history)


def test_lr_of_epochs_in_one_piece_and_over_several_calls(module):
    optimizer = module.SGD(schedules.Step(0.1, 7))
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((50, 3)), rng.random((50, 2))
    model = module.MLP([3, 4, 2], seed=0)
    histories = [model.fit(X, Y, epochs=n, batch_size=20, optimizer=optimizer) for n in (3, 2)]
    np.testing.assert_allclose(
        np.concatenate([h.lr for h in histories]), 0.1 * 0.1 ** (np.array([2, 5, 8, 11, 14]) // 7)
    )
    assert histories[0].val_loss.shape == (0,)
    assert histories[0].val_metrics == {}


def test_plain_values_and_back(module):
    history = fitted(module, optimizer=module.SGD(0.1), callbacks=module.EarlyStopping(patience=1))
    history._columns["val_mae"][1] = float("nan")
    values = json.loads(json.dumps(history.to_dict(), allow_nan=False))
    again = fastbp.History.from_dict(values)
    assert again.names == history.names
    for name in history.names:
        assert np.array_equal(again._array(name), history._array(name), equal_nan=True)
    assert repr(again) == repr(history)
    assert again.to_dict() == history.to_dict()
    assert again.best_epoch is not None


def test_values_of_something_else():
    good = fastbp.History().to_dict()
    assert fastbp.History.from_dict(good).epochs == 0
    for bad in (
        {},
        {**good, "columns": 3},
        {**good, "columns": {"loss": []}},
        {**good, "columns": {"loss": [1.0], "lr": [], "epoch_seconds": []}},
        {**good, "columns": {"loss": ["a"], "lr": [1.0], "epoch_seconds": [1.0]}},
        {**good, "seconds": None},
    ):
        with pytest.raises(ValueError, match=r"not what History\.to_dict returns"):
            fastbp.History.from_dict(bad)


def test_pandas(module):
    pandas = pytest.importorskip("pandas")
    history = fitted(module, optimizer=module.SGD(0.1))
    frame = history.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(history.names)
    assert frame.index.tolist() == [1, 2, 3, 4]
    assert frame.index.name == "epoch"
    assert np.array_equal(frame["val_loss"], history.val_loss)


def test_without_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match="to_pandas needs pandas, which is not installed: pip install pandas"
    ):
        fastbp.History().to_pandas()


def test_a_column_takes_eight_bytes_an_epoch():
    """Where an epoch is one step there may be 10^8 of them."""
    epochs = 1_000_000
    tracemalloc.start()
    history = fastbp.History()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        values = np.zeros(epochs // 100)
        history._add_epochs(values, values, 1e-6)
    del values
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert history.epochs == epochs
    assert 3 * 8 * epochs <= taken < 1.15 * 3 * 8 * epochs


def test_many_epochs_of_one_step(module):
    """Chunks of many epochs and single epochs end up in the same columns."""
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((8, 3)), rng.random((8, 2))
    whole, each = (
        module.MLP([3, 4, 2], seed=0).fit(
            X, Y, epochs=300, batch_size=8, optimizer=module.SGD(0.1), callbacks=callbacks
        )
        for callbacks in ((), lambda *_: None)
    )
    np.testing.assert_array_equal(whole.loss, each.loss)
    np.testing.assert_array_equal(whole.lr, each.lr)
    assert whole.epochs == each.epochs == len(whole.epoch_seconds) == 300
