"""Activations, losses and optimizers as the textbooks write them, for tests to compare with.

For float64 or longdouble of moderate size: these overflow and cancel where the library's do not. Whatever is
new gets an entry here: the tests take their cases from these tables.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pairs

SCALE, ALPHA = 1.0507009873554804934, 1.6732632423543772848
C = math.sqrt(2 / math.pi)


@dataclass
class Definition:
    value: Callable
    slope: Callable
    bend: Callable  # the second derivative, or a bound of it around a kink
    jump: float = 0.0  # of the slope, at 0
    slopes: tuple[float, float] = (0, 1)  # far to the left and to the right
    left: float = 0  # the value far to the left, where the slope is 0 there
    of_slope: float | Callable = 1  # the size of the terms of the slope, whose rounding counts; of its value
    roundings: float | Callable = 4  # of the value, in units of its last place; of z
    torch: Callable | None = None  # of (torch.nn.functional, z); None: what has the same name there


def sigmoid(z):
    return 1 / (1 + np.exp(-np.maximum(z, -700)))


def normal_cdf(z):
    """1/2 erfc(-z / sqrt(2)); what the division loses in float64 is put back by erfc's derivative."""
    x = -np.asarray(z) / np.sqrt(np.longdouble(2))
    rounded = x.astype(np.float64)
    erfc = np.frompyfunc(math.erfc, 1, 1)(rounded)
    correction = 2 / np.sqrt(np.pi) * np.exp(-np.minimum(rounded**2, 1e4)) * (x - rounded)
    return ((erfc - correction) / 2).astype(np.asarray(z).dtype)


def density(z):
    return np.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _gated(w, w1, w2):
    """z sigmoid(w(z)), from w and its derivatives."""

    def slope(z):
        s = sigmoid(w(z))
        return s + z * s * (1 - s) * w1(z)

    def bend(z):
        s = sigmoid(w(z))
        return s * (1 - s) * (2 * w1(z) + z * ((1 - 2 * s) * w1(z) ** 2 + w2(z)))

    return Definition(lambda z: z * sigmoid(w(z)), slope, bend)


def _exponential(scale, alpha):
    return Definition(
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(z)),
        lambda z: scale * np.where(z > 0, 1, alpha * np.exp(z)),
        lambda z: scale * alpha * np.exp(np.minimum(z, 0)),
        jump=scale * abs(alpha - 1),
        slopes=(0, scale),
        left=-scale * alpha,
        of_slope=2 if scale > 1 else 1,
    )


def _mish_gate(z):
    """The first and the second derivative of tanh(log(1 + exp(z)))."""
    T, s = np.tanh(np.log1p(np.exp(z))), sigmoid(z)
    first = (1 - T**2) * s
    return first, first * (1 - s - 2 * T * s)


DEFINITIONS = {
    "relu": Definition(
        lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0, np.zeros_like, 1.0, roundings=0, of_slope=0
    ),
    "sigmoid": Definition(
        sigmoid,
        lambda z: sigmoid(z) * (1 - sigmoid(z)),
        lambda z: sigmoid(z) * (1 - sigmoid(z)) * (1 - 2 * sigmoid(z)),
        slopes=(0, 0),
        of_slope=lambda a: a,  # a (1 - a) is computed from a
    ),
    "tanh": Definition(
        np.tanh,
        lambda z: 1 - np.tanh(z) ** 2,
        lambda z: -2 * np.tanh(z) * (1 - np.tanh(z) ** 2),
        slopes=(0, 0),
        left=-1,
        of_slope=lambda a: 2 * a**2,  # so is 1 - a²
    ),
    "identity": Definition(
        lambda z: z, np.ones_like, np.zeros_like, slopes=(1, 1), torch=lambda functional, z: z * 1
    ),
    "leaky_relu": Definition(
        lambda z: np.where(z > 0, z, 0.01 * z),
        lambda z: np.where(z > 0, 1, 0.01),
        np.zeros_like,
        0.99,
        slopes=(0.01, 1),
        roundings=1,
        of_slope=0,
    ),
    "elu": _exponential(1.0, 1.0),
    "selu": _exponential(SCALE, ALPHA),
    "gelu": Definition(
        lambda z: z * normal_cdf(z),
        lambda z: normal_cdf(z) + z * density(z),
        lambda z: (2 - z * z) * density(z),
    ),
    "gelu_tanh": replace(
        _gated(
            lambda z: 2 * C * (z + 0.044715 * z**3),
            lambda z: 2 * C * (1 + 3 * 0.044715 * z**2),
            lambda z: 2 * C * 6 * 0.044715 * z,
        ),
        roundings=lambda z: 4 * (1 + np.abs(z) ** 3),  # the sigmoid has the rounding error of its argument
        torch=lambda functional, z: functional.gelu(z, approximate="tanh"),
    ),
    "silu": _gated(lambda z: z, np.ones_like, np.zeros_like),
    "mish": Definition(
        lambda z: z * np.tanh(np.log1p(np.exp(z))),
        lambda z: np.tanh(np.log1p(np.exp(z))) + z * _mish_gate(z)[0],
        lambda z: 2 * _mish_gate(z)[0] + z * _mish_gate(z)[1],
    ),
    "exp": Definition(np.exp, np.exp, np.exp, slopes=(0, math.inf), of_slope=lambda a: a),
    "softplus": Definition(
        lambda z: np.log1p(np.exp(z)),
        sigmoid,
        lambda z: sigmoid(z) * (1 - sigmoid(z)),
        torch=lambda functional, z: functional.softplus(z, threshold=60),  # beyond it PyTorch's is z itself
    ),
}


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def softmax_jacobian(a):
    """(rows, units, units): da[j]/dz[k] of each row."""
    return a[:, :, None] * (np.eye(a.shape[1]) - a[:, None, :])


def kind_and_number(loss):
    """ "huber(0.5)" is "huber" and 0.5; without brackets the number is None."""
    kind, _, rest = loss.partition("(")
    return kind, float(rest.rstrip(")")) if rest else None


@dataclass
class LossDefinition:
    """terms(a, y, number): each output's loss, and its derivative with respect to a = y_pred.

    torch(torch, z, y, number): the sum, from the output layer's z.
    """

    terms: Callable
    torch: Callable
    jump: float = 0.0  # of the derivative, where a kink lies
    kink: Callable = lambda a, y: a - y  # which is 0 there
    smooth: bool = False  # the derivative's own derivative is at most 1
    numbers: tuple[float, ...] = ()  # that are tested in brackets


def _huber(a, y, delta):
    e = a - y
    delta = 1.0 if delta is None else delta
    c = np.minimum(np.maximum(e, -delta), delta)
    return np.where(np.abs(e) <= delta, e**2 / 2, delta * (np.abs(e) - delta / 2)), c


def _pinball(a, y, quantile):
    high = a > y
    slope = np.where(a == y, 0, np.where(high, 1 - quantile, -quantile))
    return np.abs(a - y) * np.where(high, 1 - quantile, quantile), slope


LOSSES = {
    "mse": LossDefinition(
        lambda a, y, _: ((a - y) ** 2 / 2, a - y),
        lambda torch, z, y, _: torch.nn.functional.mse_loss(z, y, reduction="sum") / 2,
        smooth=True,
    ),
    "binary_crossentropy": LossDefinition(
        lambda a, y, _: (-y * np.log(a) - (1 - y) * np.log(1 - a), (a - y) / (a * (1 - a))),
        lambda torch, z, y, _: torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="sum"),
    ),
    "categorical_crossentropy": LossDefinition(
        lambda a, y, _: (-y * np.log(a), -y / a),  # smoothing is part of y
        lambda torch, z, y, smoothing: torch.nn.functional.cross_entropy(
            z, y, reduction="sum", label_smoothing=smoothing or 0
        ),
        numbers=(0.1,),
    ),
    "mae": LossDefinition(
        lambda a, y, _: (np.abs(a - y), np.sign(a - y)),
        lambda torch, z, y, _: torch.nn.functional.l1_loss(z, y, reduction="sum"),
        jump=2,
    ),
    "huber": LossDefinition(
        _huber,
        lambda torch, z, y, delta: torch.nn.functional.huber_loss(z, y, reduction="sum", delta=delta or 1.0),
        smooth=True,
        numbers=(0.25,),
    ),
    "pinball": LossDefinition(
        lambda a, y, q: _pinball(a, y, 0.5 if q is None else q),
        lambda torch, z, y, q: torch.maximum((q or 0.5) * (y - z), ((q or 0.5) - 1) * (y - z)).sum(),
        jump=1,
        numbers=(0.9,),
    ),
    "poisson": LossDefinition(
        lambda a, y, _: (a - y + y * np.log(np.where(y > 0, y, 1) / a), 1 - y / a),
        lambda torch, z, y, _: (torch.exp(z) - y * z + torch.xlogy(y, y) - y).sum(),
    ),
    "hinge": LossDefinition(
        lambda a, y, _: (np.maximum(0, 1 - y * a), -y * (y * a < 1)),
        lambda torch, z, y, _: torch.clamp(1 - z * y, min=0).sum(),
        jump=1,
        kink=lambda a, y: 1 - y * a,
    ),
    "gaussian_nll": LossDefinition(pairs.gaussian_nll, pairs.torch_gaussian_nll),
}
LOSS_NAMES = [*LOSSES, *(f"{kind}({n:g})" for kind, loss in LOSSES.items() for n in loss.numbers)]


def outputs_for(loss, outputs):
    """So many, or one more where they are pairs."""
    return outputs + outputs % 2 if loss == "gaussian_nll" else outputs


def loss_terms(name, a, y):
    """Each output's loss and its derivative with respect to a = y_pred."""
    kind, number = kind_and_number(name)
    return LOSSES[kind].terms(a, y, number)


def targets(loss, Y):
    """Such as the loss needs, from Y in [0, 1]: itself, -1 and 1, or rows of sum 1."""
    if loss == "gaussian_nll":
        return Y[:, ::2]
    if loss == "hinge":
        return np.where(Y < 0.5, -1, 1).astype(Y.dtype)
    return Y / Y.sum(axis=1, keepdims=True) if loss.startswith("categorical") else Y


def smoothed(loss, Y):
    """Rows of probabilities as label smoothing leaves them."""
    smoothing = float(loss.partition("(")[2].rstrip(")") or 0) if loss.startswith("categorical") else 0
    return Y * (1 - smoothing) + smoothing / Y.shape[1] if smoothing else Y


# ---- optimizers -------------------------------------------------------------------------------------------


@dataclass
class OptimizerDefinition:
    """step(memory, p, g, **options): new parameters, as torch.optim's documentation has them.

    memory is a dict; `t` in it counts steps from 1, and before the first step it holds nothing else. Clipping
    and l1 have been done to g, weight_decay has not.
    """

    step: Callable
    defaults: dict
    plain: dict  # amounts that suit the problem of the tests
    cases: list[dict] = field(default_factory=list)  # other options that are tested
    small_steps: dict[str, dict] = field(default_factory=dict)  # by a name: for tests of the engine's bits


def _sgd(memory, p, g, lr, momentum, nesterov, weight_decay, lr_in_velocity=False):
    g = g + weight_decay * p
    if momentum and lr_in_velocity:
        v = memory["v"] = momentum * memory.get("v", 0.0) - lr * g
        return p + (momentum * v - lr * g if nesterov else v)
    if momentum:
        m = memory["m"] = g if memory["t"] == 1 else momentum * memory["m"] + g
        g = g + momentum * m if nesterov else m
    return p - lr * g


def _moments(memory, g, betas):
    """Adam's m and v, without their bias."""
    for name, beta, term in (("m", betas[0], g), ("v", betas[1], g**2)):
        memory[name] = beta * memory.get(name, 0.0) + (1 - beta) * term
    t = memory["t"]
    return memory["m"] / (1 - betas[0] ** t), memory["v"] / (1 - betas[1] ** t)


def _adam(memory, p, g, lr, betas, eps, weight_decay, epsilon_hat=False):
    m_hat, v_hat = _moments(memory, g + weight_decay * p, betas)
    eps = eps / np.sqrt(1 - betas[1] ** memory["t"]) if epsilon_hat else eps
    return p - lr * m_hat / (np.sqrt(v_hat) + eps)


def _adamw(memory, p, g, lr, betas, eps, weight_decay):
    m_hat, v_hat = _moments(memory, g, betas)
    return p - lr * weight_decay * p - lr * m_hat / (np.sqrt(v_hat) + eps)


def _nadam(memory, p, g, lr, betas, eps, weight_decay, momentum_decay):
    g = g + weight_decay * p
    _, v_hat = _moments(memory, g, betas)
    mu, mu_next = (betas[0] * (1 - 0.96 ** (s * momentum_decay) / 2) for s in (memory["t"], memory["t"] + 1))
    memory["product"] = memory.get("product", 1.0) * mu
    of_g, of_m = (1 - mu) / (1 - memory["product"]), mu_next / (1 - memory["product"] * mu_next)
    return p - lr * (of_g * g + of_m * memory["m"]) / (np.sqrt(v_hat) + eps)


def _adagrad(memory, p, g, lr, eps, weight_decay):
    g = g + weight_decay * p
    memory["v"] = memory.get("v", 0.0) + g**2
    return p - lr * g / (np.sqrt(memory["v"]) + eps)


def _rmsprop(memory, p, g, lr, alpha, eps, momentum, weight_decay):
    g = g + weight_decay * p
    memory["v"] = alpha * memory.get("v", 0.0) + (1 - alpha) * g**2
    memory["m"] = momentum * memory.get("m", 0.0) + g / (np.sqrt(memory["v"]) + eps)
    return p - lr * memory["m"]


_ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
OPTIMIZERS = {
    "SGD": OptimizerDefinition(
        _sgd,
        {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
        {"lr": 0.1},
        [
            {"lr": 0.1, "weight_decay": 0.01},
            {"lr": 0.1, "momentum": 0.9},
            {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
            {"lr": 0.1, "momentum": 0.9, "lr_in_velocity": True, "nesterov": True},
        ],
        {
            "sgd": {"lr": 0.005},
            "sgd-decay": {"lr": 0.005, "weight_decay": 0.01},
            "momentum": {"lr": 0.002, "momentum": 0.8},
            "nesterov": {"lr": 0.002, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
            "sgd-norm": {"lr": 0.005, "clip_norm": 0.1},
            "velocity": {"lr": 0.002, "momentum": 0.8, "lr_in_velocity": True, "nesterov": True},
            "momentum-l1": {"lr": 0.002, "momentum": 0.8, "l1": 0.01},
        },
    ),
    "Adam": OptimizerDefinition(
        _adam,
        _ADAM,
        {"lr": 0.01},
        [{"betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.01}, {"eps": 1e-3, "epsilon_hat": True}],
        {
            "adam": {"lr": 0.01},
            "adam-decay": {"lr": 0.01, "weight_decay": 0.01},
            "adam-norm": {"lr": 0.01, "clip_norm": 0.1},
        },
    ),
    "AdamW": OptimizerDefinition(
        _adamw,
        _ADAM | {"weight_decay": 0.01},
        {"lr": 0.01, "weight_decay": 0.1},
        [{}, {"lr": 0.1, "weight_decay": 0.5}],
        {"adamw": {"lr": 0.01}, "adamw-all": {"lr": 0.01, "l1": 0.01, "clip_value": 0.01, "clip_norm": 0.1}},
    ),
    "NAdam": OptimizerDefinition(
        _nadam,
        _ADAM | {"lr": 2e-3, "momentum_decay": 4e-3},
        {"lr": 0.01},
        [{}, {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-3, "weight_decay": 0.01, "momentum_decay": 0.1}],
        {
            "nadam": {"lr": 0.01},
            "nadam-all": {"lr": 0.01, "weight_decay": 0.01, "clip_norm": 0.1, "l1": 0.01},
        },
    ),
    "Adagrad": OptimizerDefinition(
        _adagrad,
        {"lr": 1e-2, "eps": 1e-10, "weight_decay": 0.0},
        {},
        [{"lr": 0.1, "eps": 1e-3, "weight_decay": 0.01}],
        {"adagrad": {"lr": 0.01, "weight_decay": 0.01}, "adagrad-value": {"lr": 0.01, "clip_value": 0.01}},
    ),
    "RMSprop": OptimizerDefinition(
        _rmsprop,
        {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
        {},
        [{"lr": 0.1, "alpha": 0.5, "eps": 1e-3, "momentum": 0.7, "weight_decay": 0.01}],
        {
            "rmsprop": {"lr": 0.003},
            "rmsprop-momentum": {"lr": 0.003, "momentum": 0.5, "weight_decay": 0.01},
        },
    ),
}
