"""Memory: the peak of a process that trains, and of one that only imports."""

from __future__ import annotations

from .common import DTYPES, IMPLEMENTATIONS, Fit, OverShapes, require


class FitMemory:
    params = [["tiny 32 x 8-16-1", "mnist 128 x 784-256-10"], DTYPES, list(IMPLEMENTATIONS)]
    param_names = OverShapes.param_names
    timeout = 900
    steps = 64

    def setup_cache(self) -> None:
        # The peak of a process that compiles is the compiler's. This runs in a process of its own and leaves
        # the kernels in Numba's cache on disk.
        for shape in self.params[0]:
            for dtype in DTYPES:
                try:
                    Fit(shape, dtype, "fastbp", 1).epoch()
                except NotImplementedError:
                    return

    setup_cache.timeout = 900

    def setup(self, shape: str, dtype: str, implementation: str) -> None:
        self.fit = Fit(shape, dtype, implementation, self.steps)

    def peakmem_fit(self, shape: str, dtype: str, implementation: str) -> None:
        self.fit.epoch()

    peakmem_fit.pretty_name = "peak memory of the process in MLP.fit"


class ImportMemory:
    params = [list(IMPLEMENTATIONS)]
    param_names = ["implementation"]
    timeout = 300

    def setup(self, implementation: str) -> None:
        require(implementation, "MLP")

    def peakmem_import(self, implementation: str) -> None:
        require(implementation, "MLP")

    peakmem_import.pretty_name = "peak memory of the process after the import"
