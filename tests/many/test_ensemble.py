"""An ensemble is its models, asked in one call, and one file."""

import json
import pickle

import numpy as np
import pytest
from many_networks import X, Y

import fastbp
from fastbp.storage import model_file


def mixed(**changes):
    kinds = ([6, 8, 2], [6, 30, 20, 2], [6, 2], [6, 8, 2])
    options = {"dtype": "float64"} | changes
    return fastbp.Ensemble([fastbp.MLP(sizes, seed=i, **options) for i, sizes in enumerate(kinds)])


@pytest.mark.parametrize("rows", [1, 5, 90, 20_000])
def test_predictions_are_those_of_the_models(rows):
    ensemble = mixed()
    data = np.random.default_rng(rows).standard_normal((rows, 6))
    got = ensemble.predict(data)
    assert got.shape == (4, rows, 2) and got.dtype == np.float64
    for prediction, model in zip(got, ensemble, strict=True):
        np.testing.assert_array_equal(prediction, model.predict(data))
    np.testing.assert_allclose(ensemble.mean(data), got.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(ensemble.std(data), got.std(axis=0), rtol=1e-9, atol=1e-12)
    assert ensemble.predict(data, threads=1).tobytes() == got.tobytes()


def test_inputs_are_read_as_each_model_reads_them():
    models = [fastbp.MLP([6, 5, 2], seed=0, input_scale=1 / 255), fastbp.MLP([6, 5, 2], dtype="float64")]
    data = np.arange(60, dtype=np.uint8).reshape(10, 6)
    got = fastbp.Ensemble(models).predict(data)
    assert got.dtype == np.float64
    for prediction, model in zip(got, models, strict=True):
        np.testing.assert_array_equal(prediction, model.predict(data))


def test_fit_is_fit_many():
    ensemble, alone = mixed(), mixed()
    histories = ensemble.fit(X, Y, epochs=2, optimizers=fastbp.Adam(), progress=False)
    assert [history.epochs for history in histories] == [2] * 4
    for model, same in zip(ensemble, alone, strict=True):
        same.fit(X, Y, epochs=2, optimizer=fastbp.Adam(), progress=False)
        assert model.parameters.flat.tobytes() == same.parameters.flat.tobytes()


def test_one_file(tmp_path):
    ensemble = mixed(hidden="tanh")
    ensemble[1].metadata = {"name": "second"}
    ensemble.save(tmp_path / "e.fastbp")
    loaded = fastbp.Ensemble.load(tmp_path / "e.fastbp")
    assert loaded.predict(X).tobytes() == ensemble.predict(X).tobytes()
    assert [model.metadata for model in loaded] == [{}, {"name": "second"}, {}, {}]
    again = pickle.loads(pickle.dumps(ensemble))
    assert again.predict(X).tobytes() == ensemble.predict(X).tobytes()


def test_files_of_another_kind_and_damaged_ones_are_refused(tmp_path):
    path = tmp_path / "e.fastbp"
    mixed()[0].save(path)
    with pytest.raises(ValueError, match=r"is a model, expected an ensemble: fastbp.MLP.load"):
        fastbp.Ensemble.load(path)
    mixed().save(path)
    with pytest.raises(ValueError, match=r"is an ensemble of models, expected one model"):
        fastbp.MLP.load(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="is not an ensemble file, or is truncated"):
        fastbp.Ensemble.load(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda said: said.pop("models"),
        lambda said: said["models"].pop(),
        lambda said: said["models"].append(said["models"][0]),
        lambda said: said["models"][0]["architecture"].update(layer_sizes=[6, 9, 2]),
        lambda said: said["models"][0].pop("metadata"),
        lambda said: said.update(models=3),
    ],
)
def test_what_does_not_fit_together_is_refused(change, tmp_path):
    path = tmp_path / "e.fastbp"
    mixed().save(path)
    tensors, texts = model_file.read(path, "ensemble")
    said = json.loads(texts["ensemble"])
    change(said)
    model_file.write(path, tensors, {**texts, "ensemble": json.dumps(said)})
    with pytest.raises(ValueError, match="does not describe an ensemble"):
        fastbp.Ensemble.load(path)


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(ValueError, match="same inputs and outputs, got 6 to 1 and 6 to 2"):
        fastbp.Ensemble([fastbp.MLP([6, 2]), fastbp.MLP([6, 1])])
    with pytest.raises(ValueError, match="models is empty"):
        fastbp.Ensemble([])
    with pytest.raises(ValueError, match="X has 5 columns"):
        mixed().predict(X[:, :5])
    with pytest.raises(ValueError, match="threads is 0"):
        mixed().predict(X, threads=0)
