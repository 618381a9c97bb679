"""The same training in several libraries: the ways that `fastbp bench --against` compares.

Every `make_` function takes a Problem and returns `run(epochs)` and `parameters()`, which gives weights, then
biases, as NumPy arrays of fastbp's shapes. Each is written as somebody who knows the library would write it
for speed: data and batches are converted beforehand, nothing is read back during training. Unsupported is
raised where a library cannot do the same mathematics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastbp
import fastbp.reference
from fastbp.cli.bench.problems import BETAS, EPS, Array, Made, Problem, Shape, each
from fastbp.cli.bench.ways_tensorflow import make_tensorflow


class Unsupported(Exception):
    """The library has no such network; the message says what is missing."""


# ---- fastbp and its reference ----------------------------------------------------------------------------


def make_fastbp(problem: Problem, module: Any = fastbp) -> Made:
    shape = problem.shape
    model = module.MLP(
        shape.sizes,
        output=shape.output,
        loss=shape.loss,
        dtype=shape.dtype,
        precision=shape.precision,
        seed=0,
    )
    for mine, given in zip([*model.weights, *model.biases], problem.parameters, strict=True):
        mine[...] = given
    optimizer = module.SGD(shape.lr) if shape.optimizer == "SGD" else module.Adam(shape.lr, BETAS, EPS)

    def run(epochs: int) -> None:
        model.fit(
            problem.X,
            problem.Y,
            epochs=epochs,
            batch_size=shape.batch,
            optimizer=optimizer,
            shuffle=False,
            progress=False,
        )

    return run, lambda: [*model.weights, *model.biases]


def make_numpy_reference(problem: Problem) -> Made:
    return make_fastbp(problem, fastbp.reference)


# ---- NumPy -----------------------------------------------------------------------------------------------


def make_numpy(problem: Problem) -> Made:
    shape = problem.shape
    (Ws, bs), batches, n = problem.copies(), problem.batches(), shape.batch
    parameters = Ws + bs
    moments = [(np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    t = 0

    def gradients(x: Array, y: Array) -> list[Array]:
        a = [x]
        for W, b in zip(Ws, bs, strict=True):
            z = a[-1] @ W
            z += b
            a.append(np.maximum(z, 0, out=z) if len(a) < len(Ws) else z)
        if shape.output == "sigmoid":
            a[-1] = 1 / (1 + np.exp(-a[-1]))
        d = (a[-1] - y) * (1 / n)
        if (shape.output, shape.loss) == ("sigmoid", "mse"):
            d *= a[-1] * (1 - a[-1])
        dWs: list[Any] = []
        dbs: list[Any] = []
        for i in reversed(range(len(Ws))):
            dWs.insert(0, a[i].T @ d)
            dbs.insert(0, d.sum(axis=0))
            if i:
                d = d @ Ws[i].T
                d *= a[i] > 0
        return dWs + dbs

    def epoch() -> None:
        nonlocal t
        for x, y in batches:
            if shape.optimizer == "SGD":
                for p, g in zip(parameters, gradients(x, y), strict=True):
                    g *= shape.lr
                    p -= g
                continue
            t += 1
            for p, g, (m, v) in zip(parameters, gradients(x, y), moments, strict=True):
                m *= BETAS[0]
                m += (1 - BETAS[0]) * g
                v *= BETAS[1]
                v += (1 - BETAS[1]) * g * g
                p -= (shape.lr / (1 - BETAS[0] ** t)) * m / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPS)

    return each(epoch), lambda: parameters


# ---- PyTorch ---------------------------------------------------------------------------------------------


def make_torch(problem: Problem, compiled: bool = False) -> Made:
    import torch

    shape = problem.shape
    layers: list[Any] = []
    for W, b in zip(*problem.copies(), strict=True):
        layers.append(torch.nn.Linear(*W.shape, dtype=getattr(torch, shape.dtype)))
        with torch.no_grad():
            layers[-1].weight.copy_(torch.from_numpy(W.T))
            layers[-1].bias.copy_(torch.from_numpy(b))
    network = [part for layer in layers for part in (layer, torch.nn.ReLU())][:-1]
    if (shape.output, shape.loss) == ("sigmoid", "mse"):
        network.append(torch.nn.Sigmoid())
    model = torch.nn.Sequential(*network)
    parameters = model.parameters()
    optimizer = (
        torch.optim.SGD(parameters, shape.lr, fused=True)
        if shape.optimizer == "SGD"
        else torch.optim.Adam(parameters, shape.lr, BETAS, EPS, fused=True)
    )

    def loss(x: Any, y: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16, enabled=shape.precision is not None):
            if shape.loss == "binary_crossentropy":
                total = torch.nn.functional.binary_cross_entropy_with_logits(model(x), y, reduction="sum")
            else:
                total = 0.5 * torch.nn.functional.mse_loss(model(x), y, reduction="sum")
            return total / shape.batch

    loss_of = torch.compile(loss, dynamic=False) if compiled else loss
    batches = problem.batches(torch.from_numpy)

    def epoch() -> None:
        for x, y in batches:
            optimizer.zero_grad(set_to_none=True)
            loss_of(x, y).backward()
            optimizer.step()

    def result() -> list[Array]:
        weights = [layer.weight.detach().numpy().T for layer in layers]
        return [*weights, *(layer.bias.detach().numpy() for layer in layers)]

    return each(epoch), result


def make_torch_by_hand(problem: Problem, compiled: bool = False) -> Made:
    import torch

    shape = problem.shape
    Ws, bs = ([torch.from_numpy(p) for p in part] for part in problem.copies())
    parameters = Ws + bs
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    # Tensors: compiled code would be compiled again for every new Python number.
    rate, second = (torch.empty((), dtype=parameters[0].dtype) for _ in range(2))
    t = 0

    def gradients(x: Any, y: Any) -> list[Any]:
        a = [x]
        for W, b in zip(Ws, bs, strict=True):
            z = torch.addmm(b, a[-1], W)
            a.append(torch.relu(z) if len(a) < len(Ws) else z)
        if shape.output == "sigmoid":
            a[-1] = torch.sigmoid(a[-1])
        d = (a[-1] - y) * (1 / shape.batch)
        if (shape.output, shape.loss) == ("sigmoid", "mse"):
            d = d * (a[-1] * (1 - a[-1]))
        dWs: list[Any] = []
        dbs: list[Any] = []
        for i in reversed(range(len(Ws))):
            dWs.insert(0, a[i].T @ d)
            dbs.insert(0, d.sum(0))
            if i:
                d = (d @ Ws[i].T) * (a[i] > 0)
        return dWs + dbs

    @torch.no_grad()  # type: ignore[untyped-decorator, unused-ignore]
    def step(x: Any, y: Any) -> None:
        if shape.optimizer == "SGD":
            for p, g in zip(parameters, gradients(x, y), strict=True):
                p.sub_(g, alpha=shape.lr)
            return
        for p, g, (m, v) in zip(parameters, gradients(x, y), moments, strict=True):
            m.lerp_(g, 1 - BETAS[0])
            v.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
            p.sub_(rate * m / ((v / second).sqrt() + EPS))

    step_of = torch.compile(step, dynamic=False) if compiled else step
    batches = problem.batches(torch.from_numpy)

    def epoch() -> None:
        nonlocal t
        for x, y in batches:
            if shape.optimizer == "Adam":
                t += 1
                rate.fill_(shape.lr / (1 - BETAS[0] ** t))
                second.fill_(1 - BETAS[1] ** t)
            step_of(x, y)

    return each(epoch), lambda: [p.numpy() for p in parameters]


# ---- JAX -------------------------------------------------------------------------------------------------


def jax_step(shape: Shape) -> Callable[..., Any]:
    """A step from (parameters W1, W2, ..., b1, b2, ..., first and second moments, steps done), x and y."""
    import jax
    import jax.numpy as jnp

    layers = len(shape.sizes) - 1

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for i in range(layers):
            x = x @ parameters[i] + parameters[layers + i]
            x = jax.nn.relu(x) if i < layers - 1 else x
        if shape.loss == "binary_crossentropy":
            return (jax.nn.softplus(x) - x * y).sum() / shape.batch
        x = jax.nn.sigmoid(x) if shape.output == "sigmoid" else x
        return 0.5 * ((x - y) ** 2).sum() / shape.batch

    def step(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t = state
        g = jax.grad(loss)(p, x, y)
        if shape.optimizer == "SGD":
            return [a - shape.lr * b for a, b in zip(p, g, strict=True)], m, v, t
        t = t + 1
        m = [BETAS[0] * a + (1 - BETAS[0]) * b for a, b in zip(m, g, strict=True)]
        v = [BETAS[1] * a + (1 - BETAS[1]) * b * b for a, b in zip(v, g, strict=True)]
        rate, second = shape.lr / (1 - BETAS[0] ** t), 1 - BETAS[1] ** t
        return [a - rate * b / (jnp.sqrt(c / second) + EPS) for a, b, c in zip(p, m, v, strict=True)], m, v, t

    return step


def make_jax(problem: Problem, scan: bool = False) -> Made:
    import jax

    jax.config.update("jax_enable_x64", problem.shape.dtype == "float64")
    import jax.numpy as jnp

    shape, step = problem.shape, jax_step(problem.shape)
    parameters = [jnp.asarray(p) for p in problem.parameters]

    moments = [[jnp.zeros_like(p) for p in parameters] * (shape.optimizer == "Adam") for _ in range(2)]
    state: Any = (parameters, *moments, jnp.zeros((), shape.dtype))

    if scan:  # all steps of all epochs in one compiled call
        data = [jnp.asarray(array).reshape(shape.steps, shape.batch, -1) for array in (problem.X, problem.Y)]

        def one_epoch(state: Any, data: Any) -> Any:
            return jax.lax.scan(lambda state, xy: (step(state, *xy), None), state, data)[0]

        epochs_of = jax.jit(
            lambda state, data, n: jax.lax.fori_loop(0, n, lambda _, state: one_epoch(state, data), state)
        )

        def run(epochs: int) -> None:
            nonlocal state
            state = jax.block_until_ready(epochs_of(state, data, epochs))

    else:
        step_of = jax.jit(step, donate_argnums=0)
        batches = problem.batches(jnp.asarray)

        def run(epochs: int) -> None:
            nonlocal state
            for _ in range(epochs):
                for x, y in batches:
                    state = step_of(state, x, y)
            jax.block_until_ready(state)

    return run, lambda: [np.asarray(p) for p in state[0]]


# ---- scikit-learn ----------------------------------------------------------------------------------------


def make_sklearn(problem: Problem) -> Made:
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    shape = problem.shape
    if (shape.output, shape.loss) == ("identity", "mse"):
        kind = MLPRegressor
    elif (shape.output, shape.loss) == ("sigmoid", "binary_crossentropy") and shape.sizes[-1] > 1:
        kind = MLPClassifier  # rows of zeros and ones are its "multilabel" task
    else:
        raise Unsupported(f"scikit-learn has no {shape.output} outputs with {shape.loss}")
    if shape.optimizer != "SGD":
        raise Unsupported("scikit-learn's Adam adds epsilon before the correction of the bias, not after it")
    estimator = kind(
        hidden_layer_sizes=shape.sizes[1:-1],
        activation="relu",
        solver="sgd",
        alpha=0.0,
        batch_size=shape.batch,
        learning_rate_init=shape.lr,
        shuffle=False,
        random_state=0,
        momentum=0.0,
        nesterovs_momentum=False,
    )
    one_output = shape.sizes[-1] == 1
    Y = problem.Y[:, 0] if one_output else problem.Y
    if kind is MLPClassifier:
        Y = Y.astype(int)
        estimator.partial_fit(problem.X, Y, classes=list(range(shape.sizes[-1])))
    else:
        estimator.partial_fit(problem.X, Y)
    # It draws its own first weights when it first sees data. Now it gets ours, and an optimizer that has seen
    # nothing: partial_fit makes one where there is none.
    for mine, given in zip([*estimator.coefs_, *estimator.intercepts_], problem.parameters, strict=True):
        mine[...] = given
    del estimator._optimizer

    def epoch() -> None:
        estimator.partial_fit(problem.X, Y)

    return each(epoch), lambda: [*estimator.coefs_, *estimator.intercepts_]


# Those that round the operands of products where the shape has a `precision`. (PyTorch's autocast also keeps
# activations so, and sums as its library does.)
ROUND = ("fastbp", "numpy reference", "torch autograd", "torch autograd, compiled")
# variant -> the library that it needs, and how it is made
VARIANTS: dict[str, tuple[str, Callable[[Problem], Made]]] = {
    "fastbp": ("fastbp", make_fastbp),
    "numpy reference": ("numpy", make_numpy_reference),
    "numpy by hand": ("numpy", make_numpy),
    "torch autograd": ("torch", make_torch),
    "torch autograd, compiled": ("torch", lambda problem: make_torch(problem, compiled=True)),
    "torch by hand": ("torch", make_torch_by_hand),
    "torch by hand, compiled": ("torch", lambda problem: make_torch_by_hand(problem, compiled=True)),
    "jax step": ("jax", make_jax),
    "jax scan": ("jax", lambda problem: make_jax(problem, scan=True)),
    "tensorflow step": ("tensorflow", make_tensorflow),
    "tensorflow scan": ("tensorflow", lambda problem: make_tensorflow(problem, scan=True)),
    "sklearn partial_fit": ("sklearn", make_sklearn),
}


def made(variant: str, problem: Problem) -> Made:
    """A way of training on a problem."""
    if problem.shape.precision is not None and variant not in ROUND:
        raise Unsupported(f"not written with products of {problem.shape.precision} here")
    return VARIANTS[variant][1](problem)
