"""The same small networks in JAX, for `fastbp bench --many N --against jax`: all of them as one vectorised
network (vmap), and one scan after another. Batches come in the order of the rows, which spares JAX the
shuffling that fastbp does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.bench.problems import BETAS, EPS

LR = 1e-3


def ways(
    sizes: Sequence[int], X: NDArray[Any], Y: NDArray[Any], batch: int, epochs: int, count: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Two functions that train so many networks from new weights: as one, and one by one."""
    import jax
    import jax.numpy as jnp

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        for i, (W, b) in enumerate(parameters):
            z = x @ W + b
            x = jax.nn.relu(z) if i < len(parameters) - 1 else jax.nn.sigmoid(z)
        return ((x - y) ** 2).sum() / (2 * batch)

    def step(state: Any, rows: Any) -> Any:
        parameters, first, second, t = state
        t += 1
        tree = jax.tree_util.tree_map
        g = jax.grad(loss)(parameters, *rows)
        first = tree(lambda m, q: BETAS[0] * m + (1 - BETAS[0]) * q, first, g)
        second = tree(lambda v, q: BETAS[1] * v + (1 - BETAS[1]) * q * q, second, g)

        def updated(p: Any, m: Any, v: Any) -> Any:
            return p - LR * (m / (1 - BETAS[0] ** t)) / (jnp.sqrt(v / (1 - BETAS[1] ** t)) + EPS)

        return (tree(updated, parameters, first, second), first, second, t), None

    batches = len(X) // batch
    data = tuple(jnp.asarray(part).reshape(batches, batch, -1) for part in (X, Y))

    def train(parameters: Any) -> Any:
        zeros = jax.tree_util.tree_map(jnp.zeros_like, parameters)

        def epoch(state: Any, _: Any) -> Any:
            return jax.lax.scan(step, state, data)[0], None

        return jax.lax.scan(epoch, (parameters, zeros, zeros, jnp.float32(0)), None, epochs)[0][0]

    rng = np.random.default_rng(0)

    def layer(n: int, m: int) -> tuple[NDArray[Any], NDArray[Any]]:
        return rng.standard_normal((n, m), np.float32) * np.float32(np.sqrt(2 / n)), np.zeros(m, np.float32)

    weights = [[layer(n, m) for n, m in itertools.pairwise(sizes)] for _ in range(count)]
    stacked = jax.tree_util.tree_map(lambda *parts: np.stack(parts), *weights)
    one, all_at_once = jax.jit(train), jax.jit(jax.vmap(train))
    return (
        lambda: jax.block_until_ready(all_at_once(stacked)),
        lambda: jax.block_until_ready([one(parameters) for parameters in weights]),
    )
