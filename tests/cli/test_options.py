"""Options of `fastbp train`: what a TOML file and the command line say, and what does not go together."""

import pytest

from fastbp.cli import options as kinds
from fastbp.cli.arguments import parse
from fastbp.cli.train.options import TRAIN


@pytest.fixture
def gather(tmp_path):
    """The settings that a command line, and maybe the text of a file, make."""

    def gather(line="", toml=None):
        file = None
        if toml is not None:
            file = str(tmp_path / "train.toml")
            (tmp_path / "train.toml").write_text(toml, encoding="utf-8")
        return kinds.gather(TRAIN, vars(parse(["train", *line.split()])), file)

    return gather


# A value of each option, as it stands on the command line and in the file.
VALUES = {
    "data": ("d.csv", '"d.csv"'),
    "target": ("y", '"y"'),
    "labels": ("l.idx", '"l.idx"'),
    "drop": ("a,b", '["a", "b"]'),
    "weights": ("w", '"w"'),
    "test": ("t.csv", '"t.csv"'),
    "test-labels": ("tl.idx", '"tl.idx"'),
    "test-size": ("0.25", "0.25"),
    "folds": ("3", "3"),
    "separator": (";", '";"'),
    "decimal": (",", '","'),
    "encoding": ("latin-1", '"latin-1"'),
    "dates": (True, "true"),
    "rare": ("3", "3"),
    "max-columns": ("50", "50"),
    "missing-target": ("drop", '"drop"'),
    "task": ("regression", '"regression"'),
    "hidden": ("8,16", "[8, 16]"),
    "activation": ("selu", '"selu"'),
    "output": ("softmax", '"softmax"'),
    "loss": ("huber(0.5)", '"huber(0.5)"'),
    "reduction": ("sum", '"sum"'),
    "init": ("he", '"he"'),
    "layer-norm": (True, "true"),
    "dtype": ("float64", '"float64"'),
    "precision": ("bfloat16", '"bfloat16"'),
    "epochs": ("3", "3"),
    "steps": ("3", "3"),
    "batch-size": ("4", "4"),
    "accumulate": ("2", "2"),
    "mpi": (True, "true"),
    "shards": ("4", "4"),
    "shuffle": (False, "false"),
    "class-weights": ("a=b=2,c=0.5", '{ "a=b" = 2, c = 0.5 }'),
    "ensemble": ("3", "3"),
    "seed": ("7", "7"),
    "threads": ("1", "1"),
    "optimizer": ("SGD", '"SGD"'),
    "lr": ("0.5", "0.5"),
    "momentum": ("0.9", "0.9"),
    "nesterov": (True, "true"),
    "betas": ("0.8,0.9", "[0.8, 0.9]"),
    "alpha": ("0.9", "0.9"),
    "eps": ("1e-7", "1e-7"),
    "weight-decay": ("0.01", "0.01"),
    "l1": ("0.001", "0.001"),
    "decay-biases": (False, "false"),
    "clip-value": ("1", "1.0"),
    "clip-norm": ("2", "2"),
    "schedule": ("cosine", '"cosine"'),
    "warm-up": ("1.5", "1.5"),
    "warm-up-start": ("0.1", "0.1"),
    "decay-every": ("5", "5"),
    "decay-factor": ("0.5", "0.5"),
    "min-lr": ("1e-5", "1e-5"),
    "restart-every": ("5", "5"),
    "restart-growth": ("2", "2"),
    "cycle-up": ("0.2", "0.2"),
    "cycle-start": ("0.1", "0.1"),
    "cycle-end": ("0.01", "0.01"),
    "plateau-patience": ("3", "3"),
    "plateau-threshold": ("0.01", "0.01"),
    "plateau-cooldown": ("1", "1"),
    "plateau-monitor": ("loss", '"loss"'),
    "dropout": ("0.5", "0.5"),
    "input-noise": ("0.1", "0.1"),
    "l2": ("0.1", "0.1"),
    "max-norm": ("3", "3"),
    "validation": ("0.1", "0.1"),
    "metrics": ("accuracy,top_k(3)", '["accuracy", "top_k(3)"]'),
    "patience": ("5", "5"),
    "min-delta": ("0.01", "0.01"),
    "monitor": ("loss", '"loss"'),
    "out": ("m", '"m"'),
    "plot": ("p.png", '"p.png"'),
    "checkpoint": ("c", '"c"'),
    "every": ("2", "2"),
}


def test_file_and_command_line_say_the_same(tmp_path):
    """Every option there is; whether they go together is not asked."""
    options = {option.name: option for group in TRAIN.values() for option in group}
    assert list(VALUES) == list(options)
    path = tmp_path / "train.toml"
    path.write_text("".join(f"{name} = {toml}\n" for name, (_, toml) in VALUES.items()), encoding="utf-8")
    from_file = kinds.read_file(str(path), options)
    for name, (line, _) in VALUES.items():
        words = [line] if name == "data" else [f"--{'' if line is not False else 'no-'}{name}"]
        if name != "data" and isinstance(line, str):
            words.append(line)
        given = vars(parse(["train", *words]))
        assert given[options[name].attribute] == from_file[name], name
        assert from_file[name] != options[name].default, name


def test_the_command_line_wins_over_the_file_and_both_over_defaults(gather):
    settings = gather(
        "--lr 0.5 --steps 9 --no-shuffle", "lr = 0.1\nepochs = 4\nbatch-size = 8\nshuffle = true\n"
    )
    assert (settings.lr, settings.steps, settings.epochs) == (
        0.5,
        9,
        None,
    )  # steps displace the file's epochs
    assert (settings.batch_size, settings.shuffle, settings.hidden) == (8, False, [64])


@pytest.mark.parametrize(
    ("line", "toml", "message"),
    [
        ("--epochs 2 --steps 3", None, "--epochs and --steps exclude each other"),
        ("", "test = 'a.csv'\ntest-size = 0.2", "--test and --test-size exclude each other"),
        ("--momentum 0.9", None, "--momentum is for --optimizer SGD or RMSprop, got Adam"),
        ("--optimizer Adam", "momentum = 0.9", "--momentum is for --optimizer SGD or RMSprop, got Adam"),
        ("--restart-every 3", None, "--restart-every is for --schedule cosine, got constant"),
        ("--every 3", None, "--every needs --checkpoint as well"),
        ("--metrics accuracy", None, "--metrics needs --validation as well"),
        ("", "bach-size = 3", "unknown option 'bach-size'; the nearest known ones are batch-size, "),
        ("", "[optimiser]\nlr = 1", "unknown option 'optimiser'; the nearest known ones are optimizer, "),
        ("", "[optimizer]\nname = 'SGD'", "optimizer: {'name': 'SGD'} is neither a number nor text"),
        ("", "epochs = true", "epochs: True is neither a number nor text"),
        ("", "epochs = 2.5", "epochs: '2.5' is not a positive whole number"),
        ("", "nesterov = 1", "nesterov: 1 is neither true nor false"),
        ("", "hidden = []", "hidden: the list is empty"),
        ("", "activation = 'rleu'", "activation: unknown activation 'rleu', expected one of 'relu', 'elu'"),
        ("", "loss = 'hinge'", "loss: unknown loss 'hinge', expected one of 'huber'"),
        ("", "loss = 'huber(0)'", "expected a number above 0 in brackets"),
        ("", "epochs 3", "train.toml is not TOML: "),
    ],
)
def test_what_is_refused(gather, line, toml, message):
    with pytest.raises(ValueError) as refused:
        gather(line, toml)
    assert message in str(refused.value)


# ---- how values may be written ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--optimizer adam", "optimizer", "Adam"),
        ("--optimizer ADAMW", "optimizer", "AdamW"),
        ("--activation ReLU", "activation", "relu"),
        ("--loss Huber(0.5)", "loss", "huber(0.5)"),
        ("--loss MSE", "loss", "mse"),
        ("--init He", "init", "he"),
        ("--task Regression", "task", "regression"),
        ("--schedule Cosine", "schedule", "cosine"),
        ("--dtype Float64", "dtype", "float64"),
    ],
)
def test_names_in_capitals_or_not(gather, line, name, value):
    assert getattr(gather(line), name) == value
    option, written = line.split()
    assert getattr(gather("", f"{option[2:]} = '{written}'"), name) == value


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--drop", '"b, c",d'], "drop", ["b, c", "d"]),
        (["--drop", "b, c"], "drop", ["b", "c"]),
        (["--class-weights", '"a,b"=2,c=3'], "class_weights", [("a,b", 2.0), ("c", 3.0)]),
        (["--class-weights", "-1=2,1=0.5"], "class_weights", [("-1", 2.0), ("1", 0.5)]),
        (["--class-weights=-1=2"], "class_weights", [("-1", 2.0)]),
        (["--target", "-x"], "target", "-x"),
        (["--target", "-1", "--drop", "-2,-3"], "target", "-1"),
    ],
)
def test_names_with_commas_and_values_that_begin_with_a_dash(words, name, value):
    arguments = parse(["train", "d.csv", *words])
    assert getattr(arguments, name) == value


def test_an_option_is_not_taken_for_the_value_of_another(capsys):
    for words in (["--target", "--drop", "a"], ["--target", "-h"], ["--target"]):
        with pytest.raises(SystemExit):
            parse(["train", "d.csv", *words])
    assert "argument --target: expected one argument" in capsys.readouterr().err
