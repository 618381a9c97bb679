"""Files that an earlier fastbp (0.1.0, in November 2026) wrote can still be read, and mean the same.

model.safetensors  every option of an MLP other than its default; expected.npz has its predictions of X
run.fastbp         two epochs of a training; expected.npz has losses and first weights of all four
table.safetensors  a network that `fastbp train` made of table.csv, with its predictions
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fastbp.cli.main import main

FILES = Path(__file__).parent / "earlier"


@pytest.fixture
def expected():
    with np.load(FILES / "expected.npz") as archive:
        return dict(archive)


def test_a_model(module, expected):
    model = module.MLP.load(FILES / "model.safetensors")
    assert repr(model) == (
        "MLP([3, 4, 4, 2], hidden='elu', output='identity', loss='huber(0.5)', reduction='sum', "
        "init='glorot', dtype='float32', precision=None, seed=3, max_norm=2.5, input_scale=[1.0, 2.0, 0.5], "
        "input_offset=0.25, dropout=[0.25, 0.5], input_noise=0.1, layer_norm=True, l2=0.0, threads=None)"
    )
    assert model.metadata == {"labels": ["a", "ü"], "n": 1}
    np.testing.assert_allclose(model.predict(expected["X"]), expected["pred"], rtol=1e-5, atol=1e-6)


def test_a_checkpoint_that_is_gone_on_from(module, expected, tmp_path):
    shutil.copy(FILES / "run.fastbp", tmp_path / "run")
    model = module.MLP([3, 4, 1], loss="binary_crossentropy", seed=1, dropout=0.25)
    X, Y = expected["X"], expected["Y"]
    history = model.fit(
        X,
        Y,
        epochs=4,
        batch_size=5,
        optimizer=module.Adam(module.schedules.ReduceOnPlateau(0.01)),
        validation_data=(X, Y),
        callbacks=[module.EarlyStopping(patience=5)],
        checkpoint=tmp_path / "run",
        progress=False,
    )
    np.testing.assert_allclose(history.loss, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(model.weights[0], expected["w"], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_as_a_model(module, expected):
    model = module.MLP.load(FILES / "run.fastbp")
    assert (model.layer_sizes, model.metadata) == ((3, 4, 1), {"k": [1]})
    assert np.isfinite(model.predict(expected["X"])).all()


def test_a_model_of_a_table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["predict", str(FILES / "table.safetensors"), str(FILES / "table.csv"), "--out", "p.csv"]) == 0
    )
    found, expected = (
        np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
        for path in ("p.csv", FILES / "predictions.csv")
    )
    assert found["prediction"].tolist() == expected["prediction"].tolist()
    np.testing.assert_allclose(found["score_u"], expected["score_u"], atol=1e-5)
