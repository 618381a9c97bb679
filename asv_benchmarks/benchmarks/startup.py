"""What a program pays before its first step: the import, and the first call, which compiles or loads kernels.

Every sample is a process of its own (`timeraw_`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile

from .common import QUICK, require

FIRST_CALLS = {
    "train_step": """
import numpy as np
import fastbp
rng = np.random.default_rng(0)
a = [rng.random(shape, np.float32) for shape in [(32, 8), (32, 1), (8, 16), (16,), (16, 1), (1,)]]
def call():
    fastbp.train_step(*a, 0.01)
""",
    "MLP": """
import numpy as np
import fastbp
rng = np.random.default_rng(0)
X, Y = rng.random((64, 8), np.float32), rng.random((64, 1), np.float32)
model, optimizer = fastbp.MLP((8, 16, 1), seed=0), fastbp.SGD(0.01)
def call():
    model.fit(X, Y, epochs=1, batch_size=32, optimizer=optimizer, progress=False)
""",
}
EMPTY_CACHE = """
import os, shutil
shutil.rmtree(os.environ["NUMBA_CACHE_DIR"], ignore_errors=True)
os.mkdir(os.environ["NUMBA_CACHE_DIR"])
"""


class Import:
    # numba and numpy are what `import fastbp` cannot be faster than
    params = [["fastbp", "fastbp.reference", "numba", "numpy"]]
    param_names = ["module"]
    timeout = 300
    number = 1
    rounds = 1
    repeat = (5, 10, 2.0)

    def setup(self, module: str) -> None:
        if module.startswith("fastbp"):
            require("fastbp" if module == "fastbp" else "reference", "train_step")

    def timeraw_import(self, module: str) -> str:
        return f"import {module}"

    timeraw_import.pretty_name = "import"


class _FirstCall:
    params = [list(FIRST_CALLS)]
    param_names = ["call"]
    timeout = 900
    number = 1
    rounds = 1

    def setup(self, call: str) -> None:
        self.folder = tempfile.mkdtemp(
            prefix="fastbp-first-call-"
        )  # before require: asv calls teardown anyway
        require("fastbp", call)
        # The timed processes inherit the variable; this process ends with the benchmark.
        os.environ["NUMBA_CACHE_DIR"] = os.path.join(self.folder, "cache")

    def teardown(self, call: str) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class FirstCallEmptyCache(_FirstCall):
    repeat = 1

    def timeraw_first_call(self, call: str) -> tuple[str, str]:
        return "call()", EMPTY_CACHE + FIRST_CALLS[call]

    timeraw_first_call.pretty_name = "first call, empty compilation cache"


class FirstCallWarmCache(_FirstCall):
    version = "52398b56ba5e5b043ad14c245f9a6218e8d2418094860dfd08455b03a9e910b3"
    repeat = (5, 10, 2.0)

    def setup(self, call: str) -> None:
        filled = os.environ.get("NUMBA_CACHE_DIR")
        super().setup(call)
        if QUICK and filled:  # here or by a test, it is all the same
            os.environ["NUMBA_CACHE_DIR"] = filled
        else:
            subprocess.run([sys.executable, "-c", FIRST_CALLS[call] + "call()"], check=True)

    def timeraw_first_call(self, call: str) -> tuple[str, str]:
        return "call()", FIRST_CALLS[call]

    timeraw_first_call.pretty_name = "first call, warm compilation cache"
