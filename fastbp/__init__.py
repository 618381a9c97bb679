"""fastbp: multi-layer perceptrons on the CPU, with forward pass, backpropagation and update as Numba kernels.

`fastbp.reference` offers the same names in plain NumPy. Importing compiles nothing and starts no threads.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fastbp.version import __version__ as __version__

if TYPE_CHECKING:
    from fastbp import callbacks, metrics, plot, reference, schedules
    from fastbp.callbacks import EarlyStopping
    from fastbp.functional import backward, forward, sgd_update, train_step
    from fastbp.history import History
    from fastbp.inspection.backward_check import check_backward
    from fastbp.inspection.config import show_config
    from fastbp.many import Ensemble, fit_many, sweep
    from fastbp.model import MLP
    from fastbp.optimizers import SGD, Adagrad, Adam, AdamW, NAdam, RMSprop
    from fastbp.tables import load, train_table

__all__ = [
    "MLP",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "EarlyStopping",
    "Ensemble",
    "History",
    "NAdam",
    "RMSprop",
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

# What is imported when it is asked for: not everybody has many networks, or tables, or more than kernels.
_MODULES = ("callbacks", "metrics", "optimizers", "plot", "reference", "schedules")
_NAMES = {
    "callbacks": ("EarlyStopping",),
    "functional": ("backward", "forward", "sgd_update", "train_step"),
    "history": ("History",),
    "inspection.backward_check": ("check_backward",),
    "inspection.config": ("show_config",),
    "many": ("Ensemble", "fit_many", "sweep"),
    "model": ("MLP",),
    "optimizers": ("SGD", "Adagrad", "Adam", "AdamW", "NAdam", "RMSprop"),
    "tables": ("load", "train_table"),
}
_LATER = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fastbp.{name}")
    if name in _LATER:
        found = globals()[name] = getattr(importlib.import_module(f"fastbp.{_LATER[name]}"), name)
        return found  # and the next time nobody asks here
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
