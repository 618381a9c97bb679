"""Files of checkpoints that are damaged, foreign or cannot be written."""

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from trainings import Stop, X, Y, assert_same, training

from fastbp.storage import atomic, model_file

# ---- files that are not what they should be -------------------------------------------------------------


def test_damaged_and_foreign_files(module, tmp_path):
    path = tmp_path / "run"
    model, _, _ = training(module, checkpoint=path, epochs=2)
    whole = path.read_bytes()
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="run is not a checkpoint file, or is truncated"):
            training(module, checkpoint=path, epochs=2)
    for at in range(0, len(whole), 97):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            training(module, checkpoint=path, epochs=2)
    model.save(path)
    with pytest.raises(ValueError, match="run is a model that was saved, not a checkpoint"):
        training(module, checkpoint=path, epochs=2)
    save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="run is a safetensors file, but not a checkpoint that fastbp saved"):
        training(module, checkpoint=path, epochs=2)
    path.write_text("epoch,loss\n")
    with pytest.raises(ValueError, match="run is not a checkpoint file"):
        training(module, checkpoint=path, epochs=2)


def resealed(path, arrays=None, **progress):
    """The file with other content and a checksum that fits."""
    tensors, texts = model_file.read(path, "checkpoint")
    texts["progress"] = json.dumps(json.loads(texts["progress"]) | progress)
    tensors = {k: v for k, v in (tensors | (arrays or {})).items() if v is not None}
    model_file.write(path, tensors, texts)


@pytest.mark.parametrize(
    "changes",
    [
        {"arrays": {"parameters": None}},
        {"arrays": {"parameters": np.zeros(3, np.float32)}},
        {"arrays": {"optimizer.1": np.zeros(130)}},
        {"arrays": {"history.loss": np.zeros(1)}},
        {"arrays": {"history.loss": None}},
        {"arrays": {"epoch_losses": np.zeros(3)}},
        {"arrays": {"result": np.zeros(3, np.float32)}},
        {"done": "many"},
        {"done": 1},
        {"random": {}},
        {"random": {"shuffling": {"bit_generator": "MT19937"}}},
        {"optimizer": {}},
        {"callbacks": [{}]},
        {"history": {}},
        {"split": "x"},
        {"optimizer_steps": None},
    ],
    ids=str,
)
def test_contradictions_with_a_valid_checksum(module, tmp_path, changes):
    training(module, checkpoint=tmp_path / "run", epochs=2)
    resealed(tmp_path / "run", **changes)
    with pytest.raises(ValueError, match="run does not describe a training"):
        training(module, checkpoint=tmp_path / "run", epochs=2)


def test_a_checkpoint_can_be_loaded_as_a_model(module, tmp_path):
    model = module.MLP([5, 16, 2], seed=3)
    model.metadata["names"] = ["a", "b"]
    model.fit(X, Y, epochs=2, optimizer=module.SGD(0.1), checkpoint=tmp_path / "run")
    loaded = module.MLP.load(tmp_path / "run")
    np.testing.assert_array_equal(loaded.parameters.flat, model.parameters.flat)
    assert loaded.metadata == model.metadata
    assert repr(loaded) == repr(model)
    resealed(tmp_path / "run", {"parameters": np.zeros(3, np.float32)})
    with pytest.raises(ValueError, match="does not describe a model"):
        module.MLP.load(tmp_path / "run")


# ---- disks that are full, and other places that cannot be written ---------------------------------------


class LimitFiles:
    """From epoch 3 on no file may be larger than half of what a checkpoint needs, as on a full disk."""

    def __init__(self):
        self.resource = pytest.importorskip("resource")
        self.before = self.resource.getrlimit(self.resource.RLIMIT_FSIZE)

    def on_epoch_end(self, model, epoch, history):
        if epoch == 3:
            self.resource.setrlimit(self.resource.RLIMIT_FSIZE, (600_000, self.before[1]))

    def lift(self):
        self.resource.setrlimit(self.resource.RLIMIT_FSIZE, self.before)


@pytest.mark.parametrize("on_error", ["raise", "warn"])
def test_a_full_disk(module, tmp_path, on_error):
    path = tmp_path / "run"
    options = {"sizes": [5, 12_000, 2], "checkpoint": path, "epochs": 5}
    limit = LimitFiles()
    try:
        if on_error == "raise":
            with pytest.raises(OSError, match=r"the checkpoint .*run cannot be written: .*File too large"):
                training(module, callbacks=limit, **options)
        else:
            with pytest.warns(RuntimeWarning, match="the checkpoint .*run cannot be written: .*too large"):
                training(module, callbacks=limit, on_checkpoint_error="warn", **options)
    finally:
        limit.lift()
    assert os.listdir(tmp_path) == ["run"]
    assert json.loads(model_file.read(path, "checkpoint")[1]["progress"])["done"] == 2 * 7
    expected = training(module, **options | {"checkpoint": None})
    assert_same(training(module, **options), expected)


def test_an_error_after_ctrl_c_does_not_hide_the_history(module, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(model_file.os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        _, _, history = training(module, callbacks=Stop("on_chunk_end", 1), checkpoint=tmp_path / "run")
    assert history.interrupted
    assert os.listdir(tmp_path) == []


def test_a_path_that_cannot_be_written(module, tmp_path):
    for path, error in [(tmp_path / "no" / "run", FileNotFoundError), (tmp_path, IsADirectoryError)]:
        with pytest.raises(error, match=r"the checkpoint .* cannot be written"):
            training(module, checkpoint=path)
    with pytest.warns(RuntimeWarning, match="cannot be written: "):
        got = training(module, checkpoint=tmp_path / "no" / "run", on_checkpoint_error="warn")
    assert_same(got, training(module))


def test_what_a_killed_process_left_is_removed(module, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    prefix = atomic._prefix(tmp_path / "run")
    names = [f"{prefix}{process}-0123abcd.tmp" for process in (ended.pid, os.getppid())]
    for name in names:
        (tmp_path / name).touch()
    training(module, checkpoint=tmp_path / "run", epochs=1)
    assert sorted(os.listdir(tmp_path)) == [names[1], "run"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"every": 0}, ValueError, "every is 0"),
        ({"every_steps": 2.5}, TypeError, "every_steps must be an integer"),
        (
            {"on_checkpoint_error": "ignore"},
            ValueError,
            "unknown on_checkpoint_error 'ignore', expected one of",
        ),
        ({"checkpoint": None, "every": 1}, ValueError, "give checkpoint= as well"),
    ],
)
def test_arguments(module, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        training(module, **{"checkpoint": tmp_path / "run"} | changes)
    assert os.listdir(tmp_path) == []


def test_metadata_must_be_json(module, tmp_path):
    model = module.MLP([5, 2])
    model.metadata["f"] = len
    with pytest.raises(TypeError, match="metadata cannot be saved"):
        model.fit(X, Y, epochs=1, optimizer=module.SGD(0.1), checkpoint=tmp_path / "run")
