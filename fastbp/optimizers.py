"""Optimizers: hyper-parameters, and the state that each keeps per model.

The formulas of a step are in `fastbp.reference` (plain NumPy) and in `fastbp.engine` (jitted); which of the
engine's, with which coefficients and how many arrays of state, each class says here. Semantics are those of
torch.optim's classes of the same names. `lr` is a number or a schedule (see `fastbp.schedules`).

What every optimizer can do to a gradient before its own step, in this order:

    clip_norm      g = g * min(1, clip_norm / (norm + 1e-6)), where norm is the length of the vector of all
                   gradients of the model: torch.nn.utils.clip_grad_norm_ between backward() and step()
    clip_value     each entry of g that is beyond +-clip_value becomes that: clip_grad_value_
    weight_decay   g = g + weight_decay * W (but in AdamW the weight shrinks, and g has no part in it)
    l1             g = g + l1 * sign(W), with sign(0) = 0

So clipping sees the gradient of the loss alone. weight_decay and l1 apply to biases and gains, too, unless
decay_biases is False, and are not part of the loss that is reported (as `MLP(l2=...)` is). clip_norm=None and
clip_value=None clip nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastbp.checks import flag, number, shown
from fastbp.optimizer_base import Numbers, Optimizer
from fastbp.schedules import Schedule


class SGD(Optimizer):
    """Stochastic gradient descent.

        g = dW + weight_decay * W
        m = momentum * m + g;   g = g + momentum * m with nesterov, else m       (only with momentum)
        W = W - lr * g

    Sutskever, Martens, Dahl and Hinton, ICML 2013, in the form that torch.optim.SGD uses. With
    lr_in_velocity=True it is their own form, that of Keras and scikit-learn, where a step of the past keeps
    the learning rate that it had:

        v = momentum * v - lr * g
        W = W + momentum * v - lr * g with nesterov, else W + v

    Set it before the first step: m and v are not the same.
    """

    rate_for_tables = 0.05
    later = {**Optimizer.later, "lr_in_velocity": False}  # noqa: RUF012

    def __init__(
        self,
        lr: float | Schedule,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        decay_biases: bool = True,
        lr_in_velocity: bool = False,
    ) -> None:
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay
        self.lr_in_velocity = lr_in_velocity
        super().__init__(l1, clip_value, clip_norm, decay_biases)

    def check(self) -> None:
        super().check()
        number("momentum", self.momentum, low=0, below=1)
        flag("lr_in_velocity", self.lr_in_velocity)
        if flag("nesterov", self.nesterov) and self.momentum == 0:
            raise ValueError("nesterov=True needs a momentum above 0, got momentum=0")

    @property
    def rule(self) -> str:
        if self.momentum:
            return "velocity" if self.lr_in_velocity else "momentum"
        return "sgd"

    @property
    def buffers(self) -> int:
        return 1 if self.momentum else 0

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        own: dict[str, Numbers] = {
            "lr": self._rates(first_step, last_step),
            "weight_decay": float(self.weight_decay),
        }
        if self.momentum:  # what is taken of g and of m
            momentum = float(self.momentum)
            of_g, of_m = (1.0, momentum) if self.nesterov else (0.0, 1.0)
            own |= {"momentum": momentum, "of_g": of_g, "of_m": of_m}
        return own


class Adam(Optimizer):
    """Adam; step t = 1, 2, ...

        g = dW + weight_decay * W
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g²
        W = W - lr * m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps)

    Kingma and Ba, ICLR 2015, algorithm 1. With epsilon_hat=True eps is their epsilon hat (at the end of
    section 2), outside of the correction of the bias, as in Keras and scikit-learn; also of AdamW and NAdam:

        W = W - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)
    """

    rate_for_tables = 0.003
    later = {**Optimizer.later, "epsilon_hat": False}  # noqa: RUF012

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        decay_biases: bool = True,
        epsilon_hat: bool = False,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.epsilon_hat = epsilon_hat
        super().__init__(l1, clip_value, clip_norm, decay_biases)

    def check(self) -> None:
        super().check()
        if (
            isinstance(self.betas, (str, bytes))
            or not isinstance(self.betas, Sequence)
            or len(self.betas) != 2
        ):
            raise TypeError(f"betas must be a list or tuple of two numbers, got {shown(self.betas)}")
        for i, beta in enumerate(self.betas):
            number(f"betas[{i}]", beta, low=0, below=1)
        number("eps", self.eps, low=0)
        flag("epsilon_hat", self.epsilon_hat)

    @property
    def rule(self) -> str:
        return "adam"

    @property
    def buffers(self) -> int:
        return 2

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        beta1, beta2 = map(float, self.betas)
        t = np.arange(first_step + 1, last_step + 1)
        unbias = 1 / np.sqrt(1 - beta2**t)
        eps = float(self.eps)
        return {
            "beta1": beta1,
            "rest1": 1 - beta1,
            "beta2": beta2,
            "rest2": 1 - beta2,
            "lr": self._rates(first_step, last_step) / (1 - beta1**t),
            "unbias": unbias,
            "eps": eps * unbias if self.epsilon_hat else eps,
            "weight_decay": float(self.weight_decay),
            "keep": 1.0,
        }


class AdamW(Adam):
    """Adam with decoupled weight decay: W = W - lr * weight_decay * W before Adam's step, g = dW.

    Loshchilov and Hutter, ICLR 2019, algorithm 2 (with lr in front of the decay, as in torch.optim.AdamW).
    """

    def __init__(
        self,
        lr: float | Schedule = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        decay_biases: bool = True,
        epsilon_hat: bool = False,
    ) -> None:
        super().__init__(
            lr,
            betas,
            eps,
            weight_decay,
            l1=l1,
            clip_value=clip_value,
            clip_norm=clip_norm,
            decay_biases=decay_biases,
            epsilon_hat=epsilon_hat,
        )

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        keep = 1 - self._rates(first_step, last_step) * float(self.weight_decay)
        return super().coefficients(first_step, last_step) | {"weight_decay": 0.0, "keep": keep}


class NAdam(Adam):
    """Adam with Nesterov's momentum; step t = 1, 2, ...

        mu(t) = beta1 * (1 - 0.96^(t * momentum_decay) / 2),    M(t) = mu(1) * mu(2) * ... * mu(t)
        m and v as Adam's
        W = W - lr * ((1 - mu(t)) / (1 - M(t)) * g + mu(t + 1) / (1 - M(t + 1)) * m)
                / (sqrt(v / (1 - beta2^t)) + eps)

    Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016, in the form of torch.optim.NAdam.
    """

    rate_for_tables = 3e-3

    def __init__(
        self,
        lr: float | Schedule = 2e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        decay_biases: bool = True,
        epsilon_hat: bool = False,
    ) -> None:
        self.momentum_decay = momentum_decay
        super().__init__(
            lr,
            betas,
            eps,
            weight_decay,
            l1=l1,
            clip_value=clip_value,
            clip_norm=clip_norm,
            decay_biases=decay_biases,
            epsilon_hat=epsilon_hat,
        )

    def check(self) -> None:
        super().check()
        number("momentum_decay", self.momentum_decay, low=0)

    @property
    def rule(self) -> str:
        return "nadam"

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        own = super().coefficients(first_step, last_step)
        beta1, decay = float(self.betas[0]), float(self.momentum_decay)
        mu = _nadam_momentum(beta1, decay, np.arange(first_step + 1, last_step + 2))
        products = _nadam_products(beta1, decay, (last_step + 1).bit_length())[first_step : last_step + 1]
        lr = self._rates(first_step, last_step)
        del own["lr"], own["keep"]
        return own | {
            "of_g": lr * (1 - mu[:-1]) / (1 - products[:-1]),
            "of_m": lr * mu[1:] / (1 - products[1:]),
        }


def _nadam_momentum(beta1: float, decay: float, t: NDArray[np.int64]) -> NDArray[np.float64]:
    mu: NDArray[np.float64] = beta1 * (1 - 0.5 * np.power(0.96, t * decay))
    return mu


@lru_cache(maxsize=8)
def _nadam_products(beta1: float, decay: float, bits: int) -> NDArray[np.float64]:
    """M(1), M(2), ..., M(2^bits): a call for each step would otherwise multiply up all those before."""
    steps = np.arange(1, (1 << bits) + 1)
    return np.cumprod(_nadam_momentum(beta1, decay, steps), dtype=np.float64)


class RMSprop(Optimizer):
    """RMSprop.

        g = dW + weight_decay * W
        v = alpha * v + (1 - alpha) * g²
        g = g / (sqrt(v) + eps);   m = momentum * m + g;   g = m                 (m only with momentum)
        W = W - lr * g

    Tieleman and Hinton, Coursera lecture 6.5, 2012, in the form that torch.optim.RMSprop uses.
    """

    rate_for_tables = 0.002

    def __init__(
        self,
        lr: float | Schedule = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        decay_biases: bool = True,
    ) -> None:
        self.lr, self.alpha, self.eps, self.momentum, self.weight_decay = (
            lr,
            alpha,
            eps,
            momentum,
            weight_decay,
        )
        super().__init__(l1, clip_value, clip_norm, decay_biases)

    def check(self) -> None:
        super().check()
        number("alpha", self.alpha, low=0, below=1)
        number("eps", self.eps, low=0)
        number("momentum", self.momentum, low=0, below=1)

    @property
    def rule(self) -> str:
        return "rmsprop-momentum" if self.momentum else "rmsprop"

    @property
    def buffers(self) -> int:
        return 2 if self.momentum else 1

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        alpha = float(self.alpha)
        return {
            "alpha": alpha,
            "rest": 1 - alpha,
            "lr": self._rates(first_step, last_step),
            "eps": float(self.eps),
            "weight_decay": float(self.weight_decay),
            "momentum": float(self.momentum),
        }


class Adagrad(Optimizer):
    """Adagrad.

        g = dW + weight_decay * W
        v = v + g²
        W = W - lr * g / (sqrt(v) + eps)

    Duchi, Hazan and Singer, JMLR 12 (2011), in the form that torch.optim.Adagrad uses.
    """

    rate_for_tables = 0.05

    def __init__(
        self,
        lr: float | Schedule = 1e-2,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        *,
        l1: float = 0.0,
        clip_value: float | None = None,
        clip_norm: float | None = None,
        decay_biases: bool = True,
    ) -> None:
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        super().__init__(l1, clip_value, clip_norm, decay_biases)

    def check(self) -> None:
        super().check()
        number("eps", self.eps, low=0)

    @property
    def rule(self) -> str:
        return "adagrad"

    @property
    def buffers(self) -> int:
        return 1

    def coefficients(self, first_step: int, last_step: int) -> dict[str, Numbers]:
        return {
            "lr": self._rates(first_step, last_step),
            "eps": float(self.eps),
            "weight_decay": float(self.weight_decay),
        }


# What `fastbp` and `fastbp.reference` offer, too.
__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "NAdam", "RMSprop"]

OPTIMIZERS: dict[str, type[Optimizer]] = {
    name: value for name, value in list(globals().items()) if name in __all__
}
