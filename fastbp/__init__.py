"""fastbp: multi-layer perceptrons on the CPU, with forward pass, backpropagation and update as Numba kernels.

`fastbp.reference` offers the same names in plain NumPy. Importing compiles nothing and starts no threads.
"""

from fastbp import callbacks, metrics, optimizers, plot, reference, schedules
from fastbp.callbacks import EarlyStopping
from fastbp.functional import backward, forward, sgd_update, train_step
from fastbp.history import History
from fastbp.inspection.backward_check import check_backward
from fastbp.inspection.config import show_config
from fastbp.many import Ensemble, fit_many, sweep
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
    "metrics",
    "plot",
    "reference",
    "schedules",
    "sgd_update",
    "show_config",
    "sweep",
    "train_step",
]
__all__ += optimizers.__all__
