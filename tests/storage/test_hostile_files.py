"""Model files that somebody made up: whatever their header says, one sentence refuses them, or they work.

Each has a checksum that fits: this is about content that the checksum cannot tell from a file of ours.
"""

import json
import random
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import fastbp
from fastbp.storage import model_file

OPTIONS = fastbp.MLP([3, 4, 2], dropout=0.25, input_scale=[1.0, 2, 3], max_norm=2, seed=1)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.safetensors"
    OPTIONS.metadata = {"a": [1, 2.5, None, {"b": "c"}]}
    OPTIONS.save(path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.fastbp"
    model = fastbp.MLP([3, 4, 2], seed=1)
    X, Y = np.ones((4, 3)), np.zeros((4, 2))
    model.fit(X, Y, epochs=1, optimizer=fastbp.Adam(), checkpoint=path, progress=False)
    return path


def parts(path):
    with safe_open(path, framework="np") as file:
        return file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def forge(path, texts, tensors):
    texts = {key: text for key, text in texts.items() if key != "sha256"}
    texts["sha256"] = model_file._checksum(tensors, texts)
    save_file(tensors, path, texts)


def refusal(path):
    """Why the file is refused, or None if it is a model that can predict."""
    try:
        model = fastbp.MLP.load(path)
    except ValueError as error:
        text = str(error)
        assert text.startswith(str(path)) and "\n" not in text and len(text) < 600
        return text
    assert np.isfinite(model.predict(np.zeros((1, model.layer_sizes[0])))).all()
    assert isinstance(model.metadata, dict)
    return None


DEEP = "[" * 100_000 + "]" * 100_000

# A value in the architecture (or the whole text), and a word of the reason.
CONTRADICTIONS = [
    ({"output": "softmax", "loss": "binary_crossentropy"}, "is defined for output='sigmoid'"),
    ({"output": "tanh", "loss": "binary_crossentropy"}, "is defined for output='sigmoid'"),
    ({"loss": "categorical_crossentropy"}, "is defined for output='softmax'"),
    ({"seed": -1}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"seed": 10**4000}, "seed has 13288 bits"),
    ({"seed": "1"}, "seed"),
    ({"seed": [1]}, "seed"),
    ({"seed": True}, "seed"),
    ({"layer_sizes": [3, 4.0, 2]}, "layer_sizes"),
    ({"layer_sizes": [3, 4, 2, 1]}, "layer_sizes"),
    ({"layer_sizes": [3, -4, 2]}, "layer_sizes"),
    ({"layer_sizes": [[3, 4], 2]}, "layer_sizes"),
    ({"layer_sizes": {"0": 3}}, "layer_sizes"),
    ({"layer_sizes": "342"}, "layer_sizes"),
    ({"layer_sizes": [10**9] * 3}, "layer_sizes"),
    ({"layer_sizes": [3] * 100_000}, "layer_sizes"),
    ({"dtype": "float64"}, "dtype"),
    ({"dtype": "float16"}, "dtype"),
    ({"dtype": "(2,"}, "dtype"),
    ({"dtype": {"names": ["a"], "formats": ["f4"]}}, "dtype"),
    ({"dtype": None}, "dtype"),
    ({"dropout": "much"}, "dropout"),
    ({"dropout": [0.1, 0.2]}, "dropout"),
    ({"dropout": 1e400}, "dropout"),
    ({"input_noise": float("nan")}, "input_noise"),
    ({"input_scale": [1.0]}, "input_scale"),
    ({"input_scale": [1.0, 2.0, 1e300]}, "input_scale"),
    ({"input_scale": 10**400}, "input_scale"),
    ({"input_offset": {"a": 1}}, "input_offset"),
    ({"input_offset": [[1.0]] * 3}, "input_offset"),
    ({"max_norm": 0}, "max_norm"),
    ({"layer_norm": 1}, "layer_norm"),
    ({"layer_norm": True}, "do not fit the arrays"),
    ({"hidden": ["relu", "tanh"]}, "hidden"),
    ({"init": None}, "init"),
    ({"reduction": "median"}, "reduction"),
    ({"threads": 10**9}, "threads"),
    ({"__class__": "os.system"}, "__class__"),
]


@pytest.mark.parametrize(("changes", "word"), CONTRADICTIONS, ids=lambda value: repr(value)[:40])
def test_contradictory_architectures_are_refused_in_one_sentence(path, changes, word):
    texts, tensors = parts(path)
    texts["architecture"] = json.dumps({**json.loads(texts["architecture"]), **changes})
    forge(path, texts, tensors)
    said = refusal(path)
    assert said is not None and word in said.split("does not describe a model:")[1]


def test_every_option_that_is_missing_is_named(path):
    texts, tensors = parts(path)
    for key in json.loads(texts["architecture"]):
        architecture = json.loads(texts["architecture"])
        del architecture[key]
        forge(path, {**texts, "architecture": json.dumps(architecture)}, tensors)
        said = refusal(path)
        assert (said is None) == (key in model_file.LATER_OPTIONS)
        assert said is None or key in said


@pytest.mark.parametrize("key", ["architecture", "metadata"])
@pytest.mark.parametrize(
    "text", ["", "null", "[1]", "{", "1" * 5000, '"a"', DEEP, '{"a":' * 50_000, "\ud7ff"]
)
def test_texts_that_are_no_json_objects_are_refused(path, key, text):
    texts, tensors = parts(path)
    forge(path, {**texts, key: text}, tensors)
    assert "does not describe a model" in refusal(path)
    forge(path, {name: value for name, value in texts.items() if name != key}, tensors)
    assert f"'{key}' is missing" in refusal(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["W1", "b2"])
def test_parameters_that_are_not_finite_are_refused(path, name, value):
    texts, tensors = parts(path)
    tensors[name] = tensors[name].copy()
    tensors[name].flat[-1] = value
    forge(path, texts, tensors)
    assert "its parameters hold NaN or infinity" in refusal(path)
    model = fastbp.MLP([3, 4, 2])
    model.weights[0][0, 0] = value
    before = path.read_bytes()
    with pytest.raises(ValueError, match="hold NaN or infinity: such a model is not saved"):
        model.save(path)
    assert path.read_bytes() == before


def test_arrays_of_other_types_or_too_many_of_them_are_refused(path):
    texts, tensors = parts(path)
    for changed in (
        {**tensors, "b1": tensors["b1"].astype(np.float64)},
        {**tensors, "b1": tensors["b1"].astype(np.int8)},
        {**tensors, "b3": tensors["b1"]},
        {**tensors, "W1": tensors["W1"].T.copy()},
        {key: tensor for key, tensor in tensors.items() if key != "b2"},
        {},
    ):
        forge(path, texts, changed)
        assert "in the file" in refusal(path)


ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    1e308,
    10**30,
    "",
    "x",
    [],
    [1],
    {},
    {"": 1},
    [[]],
    float("nan"),
    "relu",
    [3, 4, 2],
]


def mutated(value, rng):
    """A JSON value with one thing in it changed, dropped, doubled or replaced by an odd one."""
    inside = isinstance(value, (dict, list)) and len(value) and rng.random() < 0.8
    if not inside:
        return rng.choice(ODD)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    action = rng.randrange(4)
    if action == 0:
        del copy[key]
    elif action == 1 and isinstance(copy, list):
        copy.append(copy[key])
    else:
        copy[key] = mutated(copy[key], rng)
    return copy


def test_mutated_headers_are_refused_in_one_sentence_or_work(path):
    rng = random.Random(0)
    texts, tensors = parts(path)
    counts = {"refused": 0, "loaded": 0}
    for _ in range(400):
        key = rng.choice(["architecture", "architecture", "metadata"])
        changed = json.dumps(mutated(json.loads(texts[key]), rng))
        if rng.random() < 0.2:  # and as text
            at = rng.randrange(len(changed))
            changed = changed[:at] + rng.choice('{}[]",:1e\\ ') + changed[at + 1 :]
        forge(path, {**texts, key: changed}, tensors)
        counts["loaded" if refusal(path) is None else "refused"] += 1
    assert min(counts.values()) > 20, counts


def test_mutated_checkpoints_are_refused_in_one_sentence_or_work(checkpoint):
    """As a model, and as a checkpoint to go on from."""
    rng = random.Random(1)
    texts, tensors = parts(checkpoint)
    X, Y = np.ones((4, 3)), np.zeros((4, 2))
    counts = {"refused": 0, "gone on": 0}
    for _ in range(150):
        key = rng.choice(["settings", "progress"])
        forge(checkpoint, {**texts, key: json.dumps(mutated(json.loads(texts[key]), rng))}, tensors)
        refusal(checkpoint)
        model = fastbp.MLP([3, 4, 2], seed=1)
        try:
            with np.errstate(over="ignore"):  # a clip_value of 1e308, say, is none in float32
                model.fit(X, Y, epochs=2, optimizer=fastbp.Adam(), checkpoint=checkpoint, progress=False)
        except ValueError as error:
            assert str(error).startswith(str(checkpoint))
            counts["refused"] += 1
        except FloatingPointError:  # a weight_decay of 1e308 is a number
            counts["gone on"] += 1
        else:
            assert np.isfinite(model.weights[0]).all()
            counts["gone on"] += 1
    assert min(counts.values()) > 5, counts


@pytest.mark.parametrize("text", ["null", DEEP, "1" * 5000])
@pytest.mark.parametrize("key", ["settings", "progress"])
def test_checkpoints_whose_texts_are_no_json_objects_are_refused(checkpoint, key, text):
    texts, tensors = parts(checkpoint)
    forge(checkpoint, {**texts, key: text}, tensors)
    with pytest.raises(ValueError, match=re.escape(str(checkpoint))):
        fastbp.MLP([3, 4, 2], seed=1).fit(
            np.ones((4, 3)), np.zeros((4, 2)), epochs=2, optimizer=fastbp.Adam(), checkpoint=checkpoint
        )
