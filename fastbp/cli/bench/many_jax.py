"""The same small networks in JAX, for `fastbp bench --many N --against jax`: all of them as one vectorised
network (vmap), and one scan after another. Batches come in the order of the rows, which spares JAX the
shuffling that fastbp does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.cli.bench.problems import Shape
from fastbp.cli.bench.ways import jax_step


def ways(
    sizes: Sequence[int], X: NDArray[Any], Y: NDArray[Any], batch: int, epochs: int, count: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Two functions that train so many networks from new weights: as one, and one by one."""
    import jax
    import jax.numpy as jnp

    step = jax_step(Shape(len(X), batch, tuple(sizes), optimizer="Adam"))

    def step_on(state: Any, rows: Any) -> Any:
        return step(state, *rows), None

    batches = len(X) // batch
    data = tuple(jnp.asarray(part).reshape(batches, batch, -1) for part in (X, Y))

    def train(parameters: Any) -> Any:
        zeros = jax.tree_util.tree_map(jnp.zeros_like, parameters)

        def epoch(state: Any, _: Any) -> Any:
            return jax.lax.scan(step_on, state, data)[0], None

        return jax.lax.scan(epoch, (parameters, zeros, zeros, jnp.float32(0)), None, epochs)[0][0]

    rng = np.random.default_rng(0)

    def parameters() -> list[NDArray[Any]]:
        pairs = list(itertools.pairwise(sizes))
        weights = [rng.standard_normal(pair, np.float32) * np.float32(np.sqrt(2 / pair[0])) for pair in pairs]
        return [*weights, *(np.zeros(outputs, np.float32) for _, outputs in pairs)]

    networks = [parameters() for _ in range(count)]
    stacked = jax.tree_util.tree_map(lambda *parts: np.stack(parts), *networks)
    one, all_at_once = jax.jit(train), jax.jit(jax.vmap(train))
    return (
        lambda: jax.block_until_ready(all_at_once(stacked)),
        lambda: jax.block_until_ready([one(network) for network in networks]),
    )
