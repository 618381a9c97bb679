"""The engine by layers: the tile, products of one layer, shuffled epochs, predictions.

Whole training steps are in shapes.py. The first two are measured all at once in setup_cache, in one process,
together with the machine's limit of which they are shares; the benchmarks only look up their figure.

asv takes a benchmark whose code has changed for a new one, and shows no older results with it. Where only the
way to the figure has changed, `version` says that it is the same.
"""

from __future__ import annotations

import itertools
from typing import Any

from .common import THREADS, LookUp, missing, skip_if
from .measuring import PHASES, PRODUCTS, STEPS


class Tile(LookUp):
    """One tile, in the first-level cache. CPUs with fewer registers cut the high ones up, as in training."""

    heights = {1: [1, 4, 16], 2: [1, 4, 7, 8, 11, 14], 4: [1, 4, 7], 8: [1, 3]}
    params = [
        [f"{height} x {width}" for width, heights in heights.items() for height in heights],
        [32, 256],
    ]
    param_names = ["rows x vectors", "depth"]
    version = "84554dfb2ee835e966056d624efdc06a0d4f59f2cd92a10c38ddd183cf567759"

    def setup_cache(self) -> dict[Any, Any]:
        if absent := missing("blocking", "multiply_add_limit", "tile_speed"):
            return absent
        from fastbp.engine.probes import blocking, multiply_add_limit, tile_speed

        limit = multiply_add_limit()
        figures = {}
        for name in self.params[0]:
            height, width = map(int, name.split(" x "))
            width = max(w for w in blocking().tile_rows if w <= width)
            for depth in self.params[1]:
                figures[name, depth] = 100 * tile_speed(height, width, depth, legs=5) / limit
        return figures

    def track_share(self, figures: dict[Any, Any], tile: str, depth: int) -> float:
        return round(figures[tile, depth], 1)

    track_share.pretty_name = "tile, float32, share of the multiply-add limit (more is better)"
    track_share.unit = "%"


class Product(LookUp):
    params = [list(PRODUCTS), PHASES, THREADS]
    param_names = ["batch x fan_in-fan_out", "phase", "threads"]
    version = "06740223224ad2958d342beaf7330a49aadb7950538b4019b4e6dc706c8e1fd7"

    def setup_cache(self) -> dict[Any, Any]:
        if absent := missing("multiply_add_limit", "one_phase"):
            return absent
        from fastbp.engine.probes import multiply_add_limit

        from .measuring import product_speed

        products, phases, counts = self.params
        limit = {threads: multiply_add_limit(threads=threads) for threads in counts}
        speeds = {
            (product, phase, n): product_speed(product, phase, threads=n)
            for product, phase, n in itertools.product(products, phases, counts)
        }
        for n in counts:  # once more: whatever else the machine did during one of them
            limit[n] = max(limit[n], multiply_add_limit(threads=n))
        return {key: 100 * speed / limit[key[-1]] for key, speed in speeds.items()}

    def track_share(self, figures: dict[Any, Any], product: str, phase: str, threads: int) -> float:
        return round(figures[product, phase, threads], 1)

    track_share.pretty_name = "one layer, float32, share of the multiply-add limit (more is better)"
    track_share.unit = "%"


class _Timed:
    timeout = 900
    rounds = 1
    repeat = (3, 10, 0.5)  # at least 3 samples, then up to 10 within half a second
    warmup_time = 0.05


class ShuffledEpoch(_Timed):
    params = [["tiny 32 x 8-16-1", "tabular 128 x 64-128-10", "mnist 128 x 784-256-10"], THREADS]
    param_names = ["network", "threads"]
    version = "9db170141ec69ff05d3db544f9a732718a955dc4003320d82ee7c9a939283116"
    samples = 8192

    def setup(self, network: str, threads: int) -> None:
        skip_if(missing())
        import numpy as np

        import fastbp

        self.net = STEPS[network]
        rng = np.random.default_rng(0)
        self.X = rng.standard_normal((self.samples, self.net.sizes[0]), np.float32)
        self.Y = rng.random((self.samples, self.net.sizes[-1]), np.float32)
        self.model = fastbp.MLP(self.net.sizes, seed=0, threads=threads)
        self.optimizer = fastbp.SGD(1e-3)
        self.time_epoch(network, threads)

    def time_epoch(self, network: str, threads: int) -> None:
        self.model.fit(
            self.X, self.Y, epochs=1, batch_size=self.net.batch, optimizer=self.optimizer, progress=False
        )

    time_epoch.pretty_name = "an epoch of 8192 samples, shuffled"


class Predict(_Timed):
    params = [[1, 64, 100_000], THREADS]
    param_names = ["rows", "threads"]
    version = "6f4a296d86841e6f75a7750f1ab8e76d55fdbb793663d966e66a09ac30d48299"

    def setup(self, rows: int, threads: int) -> None:
        skip_if(missing())
        import numpy as np

        import fastbp

        block = np.random.default_rng(0).standard_normal((64, 784), np.float32)
        self.X = np.ascontiguousarray(np.resize(block, (rows, 784)))
        self.model = fastbp.MLP((784, 128, 10), seed=0, threads=threads)
        self.model.predict(self.X)

    def time_predict(self, rows: int, threads: int) -> None:
        self.model.predict(self.X)

    time_predict.pretty_name = "predict, 784-128-10"
