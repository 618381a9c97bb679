"""Many networks at once: see README.md in this folder.

arguments   one for all or one for each, checked before anything trains
preparation from what fit_many is given to members
members     a network among many: its data, its settings, and the run that `fit` would make of them
crew        a queue of networks, and a thread for each core that takes the next one
fit         fit_many
remote      the same by the workers of an executor
ensemble    models that are asked together
splits      the rows that are trained on and those that judge
grid        from a grid of hyper-parameters to models and optimizers
sweeping    every configuration on every fold
table       what comes out of that
"""

from fastbp.many.ensemble import Ensemble
from fastbp.many.fit import fit_many
from fastbp.many.sweeping import sweep

__all__ = ["Ensemble", "fit_many", "sweep"]
