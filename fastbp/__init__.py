"""fastbp: multi-layer perceptrons on the CPU, with forward pass, backpropagation and update as Numba kernels.

`fastbp.reference` offers the same names in plain NumPy. Importing compiles nothing and starts no threads.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastbp import callbacks, metrics, optimizers, plot, reference, schedules
from fastbp.callbacks import EarlyStopping
from fastbp.functional import backward, forward, sgd_update, train_step
from fastbp.history import History
from fastbp.inspection.backward_check import check_backward
from fastbp.inspection.config import show_config
from fastbp.model import MLP
from fastbp.optimizers import *  # noqa: F403 - the ones in its __all__
from fastbp.version import __version__ as __version__

__all__ = [
    "MLP",
    "EarlyStopping",
    "Ensemble",
    "History",
    "backward",
    "callbacks",
    "check_backward",
    "fit_many",
    "forward",
    "load",
    "metrics",
    "plot",
    "reference",
    "schedules",
    "sgd_update",
    "show_config",
    "sweep",
    "train_step",
    "train_table",
]
__all__ += optimizers.__all__

if TYPE_CHECKING:
    from fastbp.many import Ensemble, fit_many, sweep
    from fastbp.tables import load, train_table

# What is imported when it is asked for: not everybody has many networks, or tables.
_LATER = dict.fromkeys(("Ensemble", "fit_many", "sweep"), "fastbp.many")
_LATER |= dict.fromkeys(("load", "train_table"), "fastbp.tables")


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
