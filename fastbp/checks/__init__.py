"""Every check of what a caller passes in, with the error messages.

Kernels and the reference's equations assume clean input; everything that could be wrong is refused here,
before anything is modified. A message names the argument, what was given and what was expected.

    arrays.py     arrays, their shapes and dtypes, NaN and infinity
    scalars.py    rates, counts and flags
    names.py      one name out of those that are known
    foreign.py    what callers have instead of arrays: tables, sparse and masked arrays
    warning.py    warnings that point at the caller's line
    two_layer.py  all arguments of `forward`, `backward`, `sgd_update` and `train_step`
"""

from fastbp.checks.arrays import (
    FLOAT32,
    FLOAT64,
    as_floats,
    as_numbers,
    common_dtype,
    require_finite,
    require_inputs,
    require_matrix,
    require_targets,
    require_updatable,
)
from fastbp.checks.foreign import as_array, column_names, hint_for, is_table, refuse_masked
from fastbp.checks.names import known_name, known_options, shown
from fastbp.checks.scalars import count, flag, learning_rate, number, number_or_one_each, positive
from fastbp.checks.two_layer import (
    backward_arguments,
    forward_arguments,
    train_step_arguments,
    update_arguments,
)
from fastbp.checks.warning import warn

__all__ = [
    "FLOAT32",
    "FLOAT64",
    "as_array",
    "as_floats",
    "as_numbers",
    "backward_arguments",
    "column_names",
    "common_dtype",
    "count",
    "flag",
    "forward_arguments",
    "hint_for",
    "is_table",
    "known_name",
    "known_options",
    "learning_rate",
    "number",
    "number_or_one_each",
    "positive",
    "refuse_masked",
    "require_finite",
    "require_inputs",
    "require_matrix",
    "require_targets",
    "require_updatable",
    "shown",
    "train_step_arguments",
    "update_arguments",
    "warn",
]
