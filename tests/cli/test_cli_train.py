"""What `fastbp train` makes of its options: the network, the optimizer, and what `fit` is given."""

import dataclasses
import os
import re
import sys

import numpy as np
import pytest

import fastbp
from fastbp import schedules
from fastbp.cli.main import main
from fastbp.cli.train import setup


class Captured(BaseException):
    """Raised in the place of training."""


@pytest.fixture(autouse=True)
def tables(tmp_path, monkeypatch):
    """classes.csv (three), two.csv (two classes), price.csv: 50 rows, features a, b, weights w, target y."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    X, w = rng.standard_normal((50, 2)), np.arange(50)
    for name, y in (("classes", np.arange(50) % 3), ("two", np.arange(50) % 2), ("price", X[:, 0] + 0.5)):
        table = np.column_stack([X, w, y])
        np.savetxt(f"{name}.csv", table, delimiter=",", header="a,b,w,y", comments="", fmt="%.6g")


@pytest.fixture
def prepared(monkeypatch):
    """The model and the arguments of `fit` that a command would train with."""

    def prepared(line):
        def fit(self, X, Y, **arguments):
            raise Captured(self, {"X": X, "Y": Y, **arguments})

        with monkeypatch.context() as patch:
            patch.setattr(fastbp.MLP, "fit", fit)
            with pytest.raises(Captured) as captured:
                main(f"train {line} --target y --out m.safetensors".split())
        return captured.value.args

    return prepared


def test_what_fit_and_the_network_are_given(prepared):
    model, given = prepared(
        "classes.csv --weights w --test-size 0.2 --validation 0.25 --hidden 8,4 --activation tanh "
        "--loss categorical_crossentropy(0.1) --init glorot --dropout 0.5,0.25 --input-noise 0.1 "
        "--max-norm 3 --dtype float64 --seed 7 --threads 1 --steps 11 --batch-size 4 --accumulate 2 "
        "--no-shuffle --class-weights 0=2,2=0.5 --optimizer SGD --momentum 0.9 --nesterov --lr 0.5 "
        "--weight-decay 0.01 --l1 0.001 --no-decay-biases --l2 0.1 --reduction weighted_mean "
        "--clip-value 1 --clip-norm 2 --metrics top_k(2) --patience 3 "
        "--min-delta 0.01 --monitor val_top_k(2) --checkpoint run.fastbp --every 2"
    )
    assert model.architecture.to_json() == {
        **fastbp.MLP(
            [2, 8, 4, 3], hidden="tanh", output="softmax", seed=7, init="glorot"
        ).architecture.to_json(),
        "loss": "categorical_crossentropy(0.1)",
        "dtype": "float64",
        "dropout": [0.5, 0.25],
        "input_noise": 0.1,
        "max_norm": 3.0,
        "l2": 0.1,
        "reduction": "weighted_mean",
    }
    assert model.architecture.threads == 1
    X, Y, weights, (X_watched, Y_watched) = (
        given.pop(name) for name in ("X", "Y", "sample_weight", "validation_data")
    )
    assert (X.shape, Y.shape, X_watched.shape, Y_watched.shape) == ((30, 2), (30, 3), (11, 2), (11, 3))
    np.testing.assert_allclose([X.mean(axis=0), X.std(axis=0)], [[0, 0], [1, 1]], atol=1e-12)
    target = np.arange(50) % 3
    np.testing.assert_array_equal(
        Y.argmax(axis=1), target[weights.astype(int)]
    )  # a weight is the row's number
    optimizer, (stopping,) = given.pop("optimizer"), given.pop("callbacks")
    decay = {"weight_decay": 0.01, "l1": 0.001, "decay_biases": False}
    expected = fastbp.SGD(0.5, 0.9, nesterov=True, **decay, clip_value=1.0, clip_norm=2.0)
    assert repr(optimizer) == repr(expected)
    assert repr(stopping) == repr(fastbp.EarlyStopping("val_top_k(2)", patience=3, min_delta=0.01))
    assert given == {
        "epochs": None,
        "steps": 11,
        "batch_size": 4,
        "accumulate": 2,
        "shards": 1,
        "comm": None,
        "shuffle": False,
        "class_weight": {0: 2.0, 2: 0.5},
        "metrics": ["top_k(2)"],
        "checkpoint": "run.fastbp",
        "every": 2,
    }


def test_products_in_bfloat16(prepared):
    assert prepared("classes.csv --precision bfloat16")[0].precision == "bfloat16"
    assert prepared("classes.csv")[0].precision is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # 41 rows to train on in batches of 16: 3 steps an epoch, 30 in ten epochs
        ("", 0.1),
        ("--schedule step --decay-every 2 --decay-factor 0.5", schedules.Step(0.1, 6, 0.5)),
        ("--schedule exponential --decay-factor 0.5", schedules.Exponential(0.1, 0.5 ** (1 / 3))),
        ("--schedule cosine --min-lr 0.01", schedules.Cosine(0.1, 30, 0.01)),
        (
            "--schedule cosine --restart-every 2 --restart-growth 3",
            schedules.Cosine(0.1, 6, restarts=True, growth=3),
        ),
        (
            "--schedule one-cycle --cycle-up 0.2 --cycle-start 0.1 --cycle-end 0.01",
            schedules.OneCycle(0.1, 30, 0.2, 0.1, 0.01),
        ),
        (
            "--schedule plateau --validation 0.4 --plateau-monitor val_accuracy --plateau-patience 2 "
            "--plateau-threshold 0.1 --plateau-cooldown 1 --min-lr 0.01 --decay-factor 0.3",
            schedules.ReduceOnPlateau(
                0.1, 0.3, 2, 0.1, cooldown=1, min_lr=0.01, mode="max", monitor="val_accuracy"
            ),
        ),
        (
            "--schedule cosine --warm-up 1.5 --warm-up-start 0.1",  # 4.5 steps, rounded to even
            schedules.WarmUp(schedules.Cosine(0.1, 26), 4, 0.1),
        ),
        ("--steps 12 --schedule cosine --accumulate 2", schedules.Cosine(0.1, 12)),
    ],
)
def test_learning_rates(prepared, options, expected):
    length = "" if "--steps" in options else "--epochs 10"
    _, given = prepared(f"classes.csv --drop w --lr 0.1 --batch-size 16 {length} {options}")
    assert given["optimizer"].lr == expected


@pytest.mark.parametrize(
    ("line", "output", "loss"),
    [
        ("price.csv", "identity", "mse"),
        ("price.csv --loss huber(0.5)", "identity", "huber(0.5)"),
        ("two.csv", "sigmoid", "binary_crossentropy"),
        ("two.csv --loss mae", "sigmoid", "mae"),
        ("classes.csv", "softmax", "categorical_crossentropy"),
        ("classes.csv --output sigmoid", "sigmoid", "binary_crossentropy"),
        ("classes.csv --loss binary_crossentropy", "sigmoid", "binary_crossentropy"),
        ("classes.csv --loss mse", "softmax", "mse"),
    ],
)
def test_output_and_loss_by_task(prepared, line, output, loss):
    model, _ = prepared(f"{line} --drop w")
    assert (model.architecture.output, model.architecture.loss.name) == (output, loss)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("price.csv --loss binary_crossentropy", "is not for a quantity: give mse, mae"),
        ("price.csv --output sigmoid", "--output sigmoid is not for a quantity: give identity"),
        ("two.csv --loss categorical_crossentropy", "is not for two classes, which share one output: give"),
        ("classes.csv --output softmax --loss binary_crossentropy", "is defined for --output sigmoid"),
        ("price.csv --class-weights balanced", "--class-weights is for classes, the target is a quantity"),
        ("classes.csv --class-weights 4=2", "'4', expected one of '0', '1', '2'"),
        ("classes.csv --class-weights balanced,1=2", "not both"),
        ("classes.csv --patience 3", "--patience looks at val_loss: give --validation SHARE as well"),
        ("classes.csv --patience 3 --monitor val_acuracy --validation 0.2", "expected one of 'val_accuracy'"),
        ("classes.csv --schedule plateau --plateau-monitor val_loss", "expected one of 'loss'"),
        ("classes.csv --validation 0.001", "--validation 0.001 of 41 rows leaves nothing"),
        ("classes.csv --warm-up 5 --epochs 5", "--warm-up 5 leaves none of the 10 steps"),
        ("classes.csv --optimizer SGD --nesterov", "nesterov=True needs a momentum above 0"),
        ("classes.csv --dropout 0.1,0.2", "dropout has 2 values"),
        ("classes.csv --weights b", "column 'b' (--weights): -"),
        ("classes.csv --weights y", "column 'y' is both --target and --weights"),
        ("classes.csv --test absent.csv", "no such file: absent.csv"),
        ("classes.csv --test features.csv", "features.csv has no target 'y'"),
        ("classes.csv --labels l.idx", "--labels is not for classes.csv, a table"),
        ("classes.csv --plot p.txt", "p.txt: a picture can be written as .png"),
        (
            "classes.csv --plot m.safetensors.png --checkpoint m.safetensors.png",
            "is the name of another file",
        ),
        ("classes.csv --checkpoint classes.csv", "--checkpoint classes.csv would overwrite an input"),
        ("--config absent.toml", "absent.toml: No such file"),
        ("", "DATA is needed"),
    ],
)
def test_refused_before_training(capsys, monkeypatch, line, message):
    with open("features.csv", "w", encoding="utf-8") as file:
        file.write("a,b,w\n1,2,3\n")
    monkeypatch.setattr(fastbp.MLP, "fit", lambda *a, **k: pytest.fail("trained"))
    assert main(f"train {line} --target y --out m.safetensors".split()) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert message in error


def test_a_picture_without_matplotlib_is_refused_before_training(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(fastbp.MLP, "fit", lambda *a, **k: pytest.fail("trained"))
    assert main(["train", "classes.csv", "--target", "y", "--out", "m.safetensors", "--plot", "p.png"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "fastbp: error: --plot needs matplotlib: pip install 'fastbp[plot]'"
    ]


def test_training_by_a_file_that_goes_on_from_its_checkpoint(capsys):
    """Two classes, early stopping, all three parts in the table, AUC, a test file, and the picture."""
    pytest.importorskip("matplotlib")
    with open("train.toml", "w", encoding="utf-8") as file:
        file.write(
            "target = 'y'\ndrop = ['w']\ntest = 'test.csv'\nvalidation = 0.2\nhidden = [8]\nepochs = 30\n"
            "patience = 2\nschedule = 'cosine'\ncheckpoint = 'run.fastbp'\nout = 'm.safetensors'\n"
        )
    table = np.loadtxt("price.csv", delimiter=",", skiprows=1)
    table[:, 3] = table[:, 0] > 0
    for name, rows in (("test.csv", table[::2]), ("d.csv", table)):
        np.savetxt(name, rows, delimiter=",", header="a,b,w,y", comments="", fmt="%.6g")
    said = []
    for _ in range(2):
        assert main(["train", "d.csv", "--config", "train.toml", "--lr", "0.3", "--plot", "p.png"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]  # the second run has nothing left to do
    lines = said[0].splitlines()
    assert "40 rows" in lines[2] and "; stopped early; the best epoch was " in lines[2]
    header, *rows = (line.split() for line in lines[4:8])
    assert header == ["part", "rows", "loss", "accuracy", "balanced", "accuracy", "AUC"]
    assert [row[:-4] for row in rows] == [
        ["training", "40"],
        ["validation", "10"],
        ["held", "out", "25"],
    ]
    assert float(rows[2][-1]) > 0.9
    with open("p.png", "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_picture_of_a_regression(capsys):
    pytest.importorskip("matplotlib")
    command = "train price.csv --target y --drop w --hidden 8 --epochs 2 --out m.safetensors --plot p.svg"
    assert main(command.split()) == 0
    assert "R2" in capsys.readouterr().out
    with open("p.svg", encoding="utf-8") as file:
        assert "<svg" in file.read(1000)


# ---- checkpoints and divergence ----------------------------------------------------------------------------

CHECKPOINTED = "--target y --drop w --epochs 2 --out m.safetensors --checkpoint run.fastbp"


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        ("--hidden 8", "--hidden or the columns ([2, 64, 3] in the checkpoint, [2, 8, 3] given)"),
        ("--activation tanh", "--activation ('relu' in the checkpoint, 'tanh' given)"),
        ("--seed 1", "--seed (0 in the checkpoint, 1 given)"),
        ("--lr 0.5", "the learning rate (0.003 in the checkpoint, 0.5 given)"),
        ("--optimizer SGD", "--optimizer: give"),
        ("--batch-size 7", "--batch-size (32 in the checkpoint, 7 given)"),
        ("--test-size 0.3", "in the data: give"),
        ("--validation 0.2", "the data or --validation"),
        ("--class-weights 1=2", "--class-weights (None in"),
        ("--dropout 0.5", "--dropout (0.0 in the checkpoint, 0.5 given)"),
        ("--patience 3 --monitor loss", "--patience"),
    ],
)
def test_a_refused_checkpoint_says_in_one_sentence_what_differs_and_how_to_start_anew(
    capsys, options, differs
):
    assert main(f"train classes.csv {CHECKPOINTED}".split()) == 0
    with open("run.fastbp", "rb") as file:
        before = file.read()
    os.unlink("m.safetensors")
    capsys.readouterr()
    assert main(f"train classes.csv {CHECKPOINTED} {options}".split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "fastbp: error: run.fastbp is the checkpoint of another training, which differs in "
    )
    assert differs in line
    assert line.endswith("give what was given then, or start anew with another file as --checkpoint")
    assert not os.path.exists("m.safetensors")
    with open("run.fastbp", "rb") as file:
        assert file.read() == before


def test_training_that_diverges_behind_its_best_epoch_writes_that_one(capsys, monkeypatch):
    """Its exit code and a sentence say so. A learning rate that jumps stands for what made it diverge."""
    monkeypatch.setattr(setup, "optimizer", lambda *_: fastbp.SGD(Jump()))
    options = "--target y --drop w --hidden 8 --epochs 40 --validation 0.2 --patience 30 --plot p.svg"
    pytest.importorskip("matplotlib")
    assert main(f"train price.csv {options} --out m.safetensors".split()) == 1
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    found = re.fullmatch(
        r"fastbp: error: m.safetensors has the best epoch, (\d+), but training diverged after it: .*epoch.*",
        line,
    )
    assert found
    assert f"the best epoch was {found[1]}" in said.out
    assert "wrote m.safetensors" in said.out and "wrote p.svg" in said.out
    assert main(["predict", "m.safetensors", "price.csv", "--out", "p.npy"]) == 0
    truth = np.loadtxt("price.csv", delimiter=",", skiprows=1)[:, 3]
    assert np.abs(np.load("p.npy") - truth).mean() < 2 * truth.std()


@dataclasses.dataclass(frozen=True)
class Jump(schedules.Schedule):
    """0.01, and from the 20th step on 1e30."""

    lr: float = 0.01

    def __call__(self, steps):
        return np.where(steps < 20, self.lr, 1e30)
