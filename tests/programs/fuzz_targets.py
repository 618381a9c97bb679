"""What fuzz.py calls: every public function and method, with good arguments, and their kinds."""

import contextlib
import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import fastbp.reference


@dataclass
class Target:
    """What is called: call(module, **arguments), after good(rng) has made the arguments.

    kinds: by an argument's name, what it is: a key of fuzz_values.KINDS. Arguments without a kind stay good.
    """

    name: str
    call: Callable
    good: Callable
    kinds: dict[str, str]
    also: tuple[str, ...] = ()  # what messages may call an odd argument besides its name


def two_layer(rng: np.random.Generator) -> dict[str, Any]:
    batch, inputs, hidden, outputs = (int(n) for n in rng.choice([1, 2, 3, 5, 17], 4))
    dtype = rng.choice(["float32", "float64"])
    shapes = {"X": (batch, inputs), "y_true": (batch, outputs), "W1": (inputs, hidden), "b1": (hidden,)}
    shapes |= {"W2": (hidden, outputs), "b2": (outputs,)}
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def for_forward(rng: np.random.Generator) -> dict[str, Any]:
    arguments = two_layer(rng)
    del arguments["y_true"]
    return arguments | {"check_finite": True}


def for_backward(rng: np.random.Generator) -> dict[str, Any]:
    a = two_layer(rng)
    z1, a1, _, y_pred = fastbp.reference.forward(a["X"], a["W1"], a["b1"], a["W2"], a["b2"])
    return {"X": a["X"], "y_true": a["y_true"], "z1": z1, "a1": a1, "y_pred": y_pred, "W2": a["W2"]}


def for_update(rng: np.random.Generator) -> dict[str, Any]:
    params = [rng.standard_normal(shape) for shape in ((3, 2), (2,), (5,))]
    return {"params": params, "grads": [p.copy() for p in params], "lr": 0.1, "check_finite": True}


def updated(module: Any, params: Any, grads: Any, lr: Any, check_finite: Any) -> Any:
    module.sgd_update(params, grads, lr, check_finite=check_finite)
    return list(params)


def updated_element(module: Any, param: Any, grad: Any, lr: Any) -> Any:
    params = [np.ones((2, 2)), param]
    module.sgd_update(params, [np.ones((2, 2)), grad], lr)
    return params


def stepped(module: Any, lr: Any, **arguments: Any) -> Any:
    loss = module.train_step(**arguments, lr=lr)
    return [loss, *(arguments[name] for name in ("W1", "b1", "W2", "b2"))]


CONSTRUCTOR = {
    "layer_sizes": "sizes",
    "hidden": "name",
    "output": "name",
    "loss": "name",
    "reduction": "name",
    "init": "name",
    "dtype": "name",
    "seed": "seed",
    "threads": "count",
    "max_norm": "number",
    "input_scale": "number",
    "input_offset": "number",
    "dropout": "number",
    "input_noise": "number",
    "layer_norm": "flag",
}


def for_constructor(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "layer_sizes": [3, 4, 2],
        "hidden": "tanh",
        "output": "identity",
        "loss": "mse",
        "reduction": "mean",
        "init": "auto",
        "dtype": "float64",
        "seed": 0,
        "threads": 1,
        "max_norm": None,
        "input_scale": 1.0,
        "input_offset": 0.0,
        "dropout": 0.0,
        "input_noise": 0.0,
        "layer_norm": False,
    }


def constructed(module: Any, **arguments: Any) -> Any:
    model = module.MLP(**arguments)
    x = np.linspace(-1, 1, 2 * model.layer_sizes[0]).reshape(2, -1)
    return [] if arguments["seed"] is None else [model.predict(x), *model.weights]


def network(module: Any, like: dict[str, Any], **more: Any) -> Any:
    options: dict[str, Any] = {"hidden": "tanh", "output": "identity", "seed": 0, "dtype": like["dtype"]}
    if like["classes"]:
        options |= {"output": "softmax", "loss": "categorical_crossentropy"}
    return module.MLP([like["inputs"], 4, like["outputs"]], **options | more)


def data(rng: np.random.Generator) -> dict[str, Any]:
    rows, inputs, outputs = int(rng.integers(1, 20)), int(rng.integers(1, 6)), int(rng.integers(2, 4))
    like = {"inputs": inputs, "outputs": outputs, "dtype": str(rng.choice(["float32", "float64"]))}
    like["classes"] = bool(rng.random() < 0.4)
    if not like["classes"] and rng.random() < 0.5:
        like["outputs"] = outputs = 1
    Y: Any = rng.random((rows, outputs)).astype(like["dtype"])
    if like["classes"]:
        Y = rng.integers(0, outputs, rows)
    X = rng.standard_normal((rows, inputs)).astype(like["dtype"])
    return {"like": like, "X": X, "Y": Y}


def with_options(**options: Any) -> Callable:
    return lambda rng: data(rng) | {name: make(rng) for name, make in options.items()}


def only_x(rng: np.random.Generator) -> dict[str, Any]:
    arguments = data(rng)
    del arguments["Y"]
    return arguments | {"check_finite": True}


def everything(model: Any) -> list[Any]:
    return [*model.weights, *model.biases]


def traced(module: Any, like: Any, X: Any, check_finite: Any) -> Any:
    trace = network(module, like).forward(X, check_finite=check_finite)
    return [*trace.z, *trace.a]


def gradients(module: Any, like: Any, X: Any, Y: Any, **more: Any) -> Any:
    model = network(module, like)
    result = model.backward(model.forward(X), Y, **more)
    return [*result.weights, *result.biases]


def foreign_trace(module: Any, like: Any, X: Any, Y: Any, trace: Any) -> Any:
    return network(module, like).backward(trace, Y)


def fitted(module: Any, like: Any, X: Any, Y: Any, optimizer: Any, lr: float = 0.01, **more: Any) -> Any:
    model = network(module, like)
    given = module.SGD(lr) if optimizer is None else optimizer
    history = model.fit(X, Y, optimizer=given, progress=False, **more)
    return [*history.loss.tolist(), *everything(model)]


def fitted_in_parts(module: Any, like: Any, X: Any, Y: Any, **more: Any) -> Any:
    model = network(module, like)
    return [model.partial_fit(X, Y, optimizer=module.SGD(0.01), **more), *everything(model)]


def stepped_model(module: Any, like: Any, X: Any, Y: Any, **more: Any) -> Any:
    model = network(module, like)
    return [model.train_step(X, Y, module.SGD(0.01), **more), *everything(model)]


def assigned(module: Any, like: Any, weights: Any) -> Any:
    model = network(module, like)
    model.weights[0] = weights
    return model.predict(np.ones((2, like["inputs"])))


def saved(module: Any, path: Any) -> Any:
    model = module.MLP([2, 1], seed=0)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        model.save(path)
        return module.MLP.load(path).weights


def fit_options(rng: np.random.Generator) -> dict[str, Any]:
    return data(rng) | {
        "epochs": 2,
        "batch_size": 4,
        "accumulate": 1,
        "optimizer": None,
        "shuffle": True,
        "sample_weight": None,
        "class_weight": None,
        "validation_split": 0.0,
        "validation_data": None,
        "metrics": (),
        "callbacks": (),
        "every": None,
        "checkpoint": None,
        "check_finite": True,
        "steps": None,
        "steps_per_epoch": None,
        "on_checkpoint_error": "raise",
        "every_steps": None,
    }


def weights_of(rng: np.random.Generator) -> Any:
    return None


def kinds(kind: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, kind)


def given(**arguments: Any) -> Callable:
    """Good arguments that are always the same."""
    return lambda rng: copy.deepcopy(arguments)


def described(name: str) -> Callable:
    """The repr of what a class makes of the arguments."""

    def make(module: Any, **arguments: Any) -> str:
        of = module.schedules if hasattr(module.schedules, name) else module
        return repr(getattr(of, name)(**arguments))

    return make


def measured(name: str) -> Callable:
    return lambda module, **arguments: getattr(module.metrics, name)(**arguments)


def predicted(module: Any, like: Any, X: Any, check_finite: Any) -> Any:
    return network(module, like).predict(X, check_finite=check_finite)


def checked(module: Any, like: Any, **arguments: Any) -> Any:
    return network(module, like).check_gradients(**arguments).passed


def diagnosed(module: Any, like: Any, **arguments: Any) -> Any:
    return [layer.mean for layer in network(module, like).diagnose(**arguments).layers]


def lost(module: Any, like: Any, **arguments: Any) -> Any:
    return network(module, like).loss(**arguments)


def for_weights(rng: np.random.Generator) -> dict[str, Any]:
    like = data(rng)["like"]
    return {"like": like, "weights": np.ones((like["inputs"], 4))}


def for_step(rng: np.random.Generator) -> dict[str, Any]:
    return two_layer(rng) | {"lr": 0.1}


def for_trace(rng: np.random.Generator) -> dict[str, Any]:
    return data(rng) | {"trace": None}


PARAMETERS = kinds("array", "W1", "b1", "W2", "b2")
XY = kinds("array", "X", "Y") | {"sample_weight": "weights"}
CHECKED = XY | {"check_finite": "flag"}
WEIGHTED = with_options(sample_weight=weights_of)
PARTIAL = with_options(sample_weight=weights_of, batch_size=lambda rng: 5, shuffle=lambda rng: True)
FIT = {
    **kinds("small count", "epochs", "steps", "steps_per_epoch"),
    **kinds("count", "batch_size", "accumulate", "every", "every_steps"),
    **kinds("anything", "validation_data", "callbacks", "optimizer"),
    **kinds("name", "metrics", "on_checkpoint_error"),
    "shuffle": "flag",
    "class_weight": "weights",
    "validation_split": "number",
}
# What forward returned is looked at no further than its first row: other numbers would give other gradients.
BACKWARD = kinds("array", "X", "y_true", "W2") | kinds("layout", "z1", "a1", "y_pred")
SGD = {"lr": 0.1, "momentum": 0.5, "nesterov": False, "weight_decay": 0.0}
CLIPPING = {"l1": 0.0, "clip_value": None, "clip_norm": None}
TWO, PICTURES = {"y_true": np.eye(3), "y_pred": np.eye(3)}, kinds("array", "y_true", "y_pred")
ONE = {"y_true": [0, 1, 1], "y_pred": np.eye(3)[:, :1]}
FILE = {"path": Path("fuzzed.safetensors")}
TARGETS = [
    Target("forward", lambda m, **a: m.forward(**a), for_forward, PARAMETERS | {"X": "array"}),
    Target("backward", lambda m, **a: m.backward(**a), for_backward, BACKWARD),
    Target("train_step", stepped, for_step, PARAMETERS | kinds("array", "X", "y_true") | {"lr": "number"}),
    Target("sgd_update", updated, for_update, {"params": "list", "grads": "list", "lr": "number"}),
    Target(
        "sgd_update of one",
        updated_element,
        given(param=np.ones(3), grad=np.ones(3), lr=0.1),
        kinds("array", "param", "grad") | {"lr": "number"},
        ("params[1]", "grads[1]"),
    ),
    Target("MLP", constructed, for_constructor, CONSTRUCTOR),
    Target("MLP.forward", traced, only_x, {"X": "array", "check_finite": "flag"}),
    Target("MLP.predict", predicted, only_x, {"X": "array", "check_finite": "flag"}),
    Target("MLP.backward", gradients, WEIGHTED, XY),
    Target("MLP.backward of something", foreign_trace, for_trace, {"trace": "anything"}),
    Target("MLP.loss", lost, WEIGHTED, CHECKED),
    Target("MLP.train_step", stepped_model, WEIGHTED, CHECKED),
    Target("MLP.partial_fit", fitted_in_parts, PARTIAL, CHECKED | {"batch_size": "count", "shuffle": "flag"}),
    Target("MLP.fit", fitted, fit_options, CHECKED | FIT, ("metric",)),
    Target("MLP.fit again", fitted, fit_options, CHECKED | FIT, ("metric",)),
    Target("MLP.check_gradients", checked, WEIGHTED, XY | {"max_entries": "count"}),
    Target("MLP.diagnose", diagnosed, data, kinds("array", "X", "Y")),
    Target("MLP.weights", assigned, for_weights, {"weights": "array"}),
    Target("MLP.save", saved, given(**FILE), {"path": "anything"}, ("/nonexistent/file.npy",)),
    Target("SGD", described("SGD"), given(**SGD, **CLIPPING), kinds("number", *SGD, *CLIPPING)),
    Target(
        "Adam", described("Adam"), given(betas=(0.9, 0.99)), {"betas": "list", **kinds("number", "lr", "eps")}
    ),
    Target("AdamW", described("AdamW"), given(lr=0.1), kinds("number", "lr", "eps", "weight_decay")),
    Target("NAdam", described("NAdam"), given(lr=0.1), kinds("number", "lr", "momentum_decay")),
    Target("RMSprop", described("RMSprop"), given(lr=0.1), kinds("number", "alpha", "eps", "momentum")),
    Target("Adagrad", described("Adagrad"), given(lr=0.1), kinds("number", "lr", "eps")),
    Target(
        "EarlyStopping",
        described("EarlyStopping"),
        given(monitor="val_loss"),
        {"monitor": "name", "patience": "count", "min_delta": "number"},
    ),
    Target(
        "Step",
        described("Step"),
        given(lr=0.1, every=3),
        kinds("number", "lr", "factor") | {"every": "count"},
    ),
    Target(
        "Cosine",
        described("Cosine"),
        given(lr=0.1, steps=3),
        kinds("number", "lr", "low") | {"steps": "count"},
    ),
    Target("accuracy", measured("accuracy"), given(**TWO), PICTURES),
    Target("r2", measured("r2"), given(**TWO), PICTURES),
    Target("mae", measured("mae"), given(**TWO), PICTURES),
    Target("auc", measured("auc"), given(**ONE), PICTURES),
    Target("top_k", measured("top_k"), given(**TWO, k=2), PICTURES | {"k": "count"}),
]
