"""save and load: complete, atomic, and clear about files that are not right."""

import json
import os
import re
import struct

import numpy as np
import pytest
from safetensors.numpy import save_file

import fastbp
import fastbp.reference


@pytest.fixture
def saved(module, tmp_path):
    model = module.MLP(
        [3, 5, 4, 2], hidden="tanh", loss="binary_crossentropy", reduction="sum", seed=3, max_norm=2.5
    )
    model.biases[0][:] = 0.5
    model.metadata = {"labels": ["a", "ü"], "mean": [1.5, 2.5]}
    path = tmp_path / "model.safetensors"
    model.save(path)
    return model, path


def test_round_trip_in_either_implementation(saved, dtype, module, tmp_path):
    model, path = saved
    X = np.random.default_rng(0).standard_normal((5, 3))
    for loader in (fastbp, fastbp.reference):
        loaded = loader.MLP.load(str(path))
        assert type(loaded) is loader.MLP
        assert repr(loaded) == repr(model)
        assert "max_norm=2.5" in repr(loaded)
        assert loaded.summary().splitlines()[0].endswith(", max_norm 2.5")
        assert loaded.metadata == model.metadata
        for a, b in zip((*loaded.weights, *loaded.biases), (*model.weights, *model.biases), strict=True):
            assert a.dtype == b.dtype
            assert np.array_equal(a, b)
        np.testing.assert_allclose(loaded.predict(X), model.predict(X), rtol=1e-6)
        loaded.train_step(X, np.ones((5, 2)), loader.SGD(0.1))
    other = module.MLP([2, 1], dtype=dtype)
    other.save(tmp_path / "other")
    assert module.MLP.load(tmp_path / "other").dtype == dtype


def test_arrays_put_in_the_place_of_parameters_are_saved(saved, module):
    model, path = saved
    model.weights[0] = np.full((3, 5), 0.25)
    model.save(path)
    assert np.all(module.MLP.load(path).weights[0] == 0.25)


def test_writing_is_atomic(saved, module, monkeypatch):
    model, path = saved
    before = path.read_bytes()
    model.weights[0][...] = 1

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        model.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]
    monkeypatch.undo()
    model.save(path)
    assert os.listdir(path.parent) == [path.name]
    assert np.all(module.MLP.load(path).weights[0] == 1)


def test_a_missing_directory_is_an_os_error(saved):
    model, path = saved
    with pytest.raises(FileNotFoundError, match="nowhere"):
        model.save(path.parent / "nowhere" / "model")


def test_metadata_must_be_json(saved):
    model, path = saved
    before = path.read_bytes()
    model.metadata = {"f": test_metadata_must_be_json}
    with pytest.raises(TypeError, match="metadata cannot be saved, it must be JSON"):
        model.save(path)
    assert path.read_bytes() == before


def test_a_missing_file_is_an_os_error(module, tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        module.MLP.load(tmp_path / "absent")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        module.MLP.load(tmp_path)


def test_truncated_anywhere(saved, module):
    _, path = saved
    whole = path.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    for length in [0, 1, 7, 8, 9, 8 + header // 2, 8 + header, len(whole) // 2 + 100, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a model file, or is truncated"):
            module.MLP.load(path)


def test_foreign_files(module, tmp_path):
    path = tmp_path / "file"
    for content in [b"PK\x03\x04 no model at all" * 10, b"\x80\x04\x95pickle", b"\xff" * 100, b"\0" * 100]:
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is not a model file, or is truncated"):
            module.MLP.load(path)
    save_file({"W1": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ValueError, match="not a model that fastbp saved"):
        module.MLP.load(path)


def test_a_change_of_any_byte_is_noticed(saved, module):
    _, path = saved
    whole = bytearray(path.read_bytes())
    for at in range(len(whole)):
        changed = whole.copy()
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            module.MLP.load(path)


def resealed(path, **changes):
    """The file with other texts and a checksum that fits them: someone who knows the format wrote it."""
    from safetensors import safe_open

    from fastbp.storage import model_file

    with safe_open(path, framework="np") as file:
        texts, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    texts.pop("sha256")
    architecture = json.loads(texts["architecture"])
    for key, value in changes.items():
        if key in texts:
            texts[key] = value
        else:
            architecture[key] = value
            texts["architecture"] = json.dumps(architecture)
    texts["sha256"] = model_file._checksum(tensors, texts)
    save_file(tensors, path, texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_sizes": [3, 5, 4, 3]},
        {"layer_sizes": [3, 5]},
        {"layer_sizes": 7},
        {"layer_sizes": [10**9, 10**9]},
        {"layer_sizes": None},
        {"dtype": "float64"},
        {"dtype": "object"},
        {"hidden": "__import__('os')"},
        {"hidden": 3},
        {"unheard_of": 1},
        {"threads": "many"},
        {"architecture": "{"},
        {"architecture": "[]"},
        {"metadata": "[1]"},
        {"metadata": "nothing"},
    ],
    ids=str,
)
def test_contradictions_with_a_valid_checksum(saved, module, changes):
    _, path = saved
    resealed(path, **changes)
    with pytest.raises(ValueError, match="does not describe a model"):
        module.MLP.load(path)
