"""From what a caller gives as X, Y and weights to rows of numbers: the one place where data are checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks
from fastbp.inputs import sources, sparse, targets
from fastbp.inputs.samples import Samples
from fastbp.inputs.sources import Labels, Rows
from fastbp.inputs.sparse import Sparse
from fastbp.losses import Loss

Array = NDArray[Any]

# Numbers that are looked through for NaN without listening for Ctrl-C: some 20 ms in memory, more on a disk.
CHECKED_AT_ONCE = 1 << 26


class Reader:
    """Reads data for one network: checks shapes, dtypes and values, scales inputs, converts to its dtype.

    inputs, outputs : the network's widths at its ends.
    scaling : (scale, offset), both (inputs,) in float64, of the inputs; None where there is nothing to do.
    is_finite : a quick look at an array; False if it may hold NaN or infinity, and has to be looked at in
        detail.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dtype: np.dtype[Any],
        loss: Loss,
        scaling: tuple[Array, Array] | None,
        is_finite: Callable[[Array], bool],
    ) -> None:
        self.input_count, self.output_count, self.dtype, self.loss = inputs, outputs, dtype, loss
        self.target_count = outputs // 2 if loss.of_pairs else outputs
        self.scaling, self._is_finite = scaling, is_finite
        self.rounded_scaling = scaling and (scaling[0].astype(dtype), scaling[1].astype(dtype))
        self.feature_names: tuple[str, ...] | None = None  # the columns' of the table that was trained on

    def learns(self, samples: Samples) -> None:
        """Remember the columns of a table that is trained on: later tables must have the same ones."""
        self.feature_names = samples.feature_names or self.feature_names

    # ---- inputs ---------------------------------------------------------------------------------------

    def inputs(self, X: Any, check_finite: bool, name: str = "X") -> Array:
        """X as the network sees it, in floats: a copy, unless it is that already."""
        if self._is_ready(X):
            return self._looked_at(X, check_finite, name)
        if sparse.is_sparse(X):
            return self._sparse(X, check_finite, name)[:]
        return self._floats(self._matrix(X, name), check_finite, name)

    def input_rows(self, X: Any, check_finite: bool, name: str = "X") -> Array | Rows:
        """X as the network sees it, for those who take some rows at a time: never a copy of a large file, nor
        of a sparse matrix."""
        if self._is_ready(X):
            return self._looked_at(X, check_finite, name)
        if sparse.is_sparse(X):
            return self._sparse(X, check_finite, name)
        array = self._matrix(X, name)
        if array.itemsize > 8 or (self.scaling is None and not sources.is_read_as_stored(array, self.dtype)):
            return self._floats(array, check_finite, name)
        if checks.flag("check_finite", check_finite) and array.dtype.kind == "f":
            unscaled = Rows(array, self.dtype)
            for rows in sources.row_blocks(array):
                self._require_finite(_name_of_block(name, rows, array), unscaled[rows])
        return Rows(array, self.dtype, self._scaling_of(array))

    def _is_ready(self, X: Any) -> bool:
        """Whether it is taken as it is, which is seen quickly of an array like most callers'."""
        return (
            self.scaling is None
            and sources.is_ready(X, self.dtype)
            and X.ndim == 2
            and X.shape[1] == self.input_count
            and len(X) > 0
        )

    def _looked_at(self, X: Array, check_finite: bool, name: str) -> Array:
        """X, if it is finite where that is asked for."""
        if checks.flag("check_finite", check_finite):
            self._require_finite(name, X)
        return X

    def _sparse(self, X: Any, check_finite: bool, name: str) -> Sparse:
        checked = checks.flag("check_finite", check_finite)
        scaling = self._scaling_of(np.empty(0, X.dtype))
        return sparse.read(name, X, self.input_count, self.dtype, scaling, check_finite=checked)

    def _matrix(self, X: Any, name: str) -> Array:
        """X as it is stored, (batch, inputs)."""
        self._require_names(name, checks.column_names(X))
        array = checks.as_numbers(name, sources.opened(name, X), self.dtype)
        inputs = self.input_count
        checks.require_matrix(name, array, f"(batch, {inputs})")
        if array.shape[1] != inputs:
            raise ValueError(
                f"{name} has {array.shape[1]} columns, the model has {inputs} inputs: "
                f"{name} must be (batch, {inputs})"
            )
        return array

    def _require_names(self, name: str, given: tuple[str, ...] | None) -> None:
        """ValueError if a table has other columns than the one trained on, or in another order."""
        known = self.feature_names
        if known is None or given is None or given == known:
            return
        missing, unknown = (
            ", ".join(map(repr, sorted(set(a) - set(b)))) for a, b in ((known, given), (given, known))
        )
        if missing or unknown or len(given) != len(known):
            parts = [f"{what} {names}" for what, names in (("misses", missing), ("has", unknown)) if names]
            what = " and ".join(parts) or f"has {len(given)} columns"
            raise ValueError(
                f"{name} {what}; the model was trained on the columns {', '.join(map(repr, known))}"
            )
        first = next(i for i, pair in enumerate(zip(given, known, strict=True)) if pair[0] != pair[1])
        raise ValueError(
            f"{name} has the columns in another order than the table that the model was trained on: column "
            f"{first} is {given[first]!r}, expected {known[first]!r}; {name}[list(model.feature_names)] puts "
            "them in order"
        )

    def _scaling_of(self, stored: Array) -> tuple[Array, Array] | None:
        """Scale and offset in the dtype in which they are applied to such numbers.

        Of numbers with more digits than the network's dtype has, an offset may leave those that it lacks: of
        seconds since 1970, float32 knows multiples of 128. Then it is float64.
        """
        if self.scaling is None or not self.scaling[1].any():
            return self.rounded_scaling
        exact = np.can_cast(stored.dtype, self.dtype)
        return self.rounded_scaling if exact else self.scaling

    def _floats(self, X: Array, check_finite: bool, name: str) -> Array:
        """`inputs` of what `_matrix` has returned."""
        array = checks.as_floats(name, X, self.dtype)
        self._looked_at(array, check_finite, name)
        scaling = self._scaling_of(X)
        if scaling is not None:
            array = Rows(X, self.dtype, scaling)[:]
        return _plain(array)

    def _require_finite(self, name: str, array: Array) -> None:
        if array.size <= CHECKED_AT_ONCE:
            if not self._is_finite(array):
                checks.require_finite(name, array)
            return
        for rows in sources.row_blocks(array, CHECKED_AT_ONCE):
            if not self._is_finite(array[rows]):
                return checks.require_finite(name, array)

    # ---- targets --------------------------------------------------------------------------------------

    def targets(
        self,
        Y: Any,
        rows: int,
        check_finite: bool,
        name: str = "Y",
        *,
        sample_weight: ArrayLike | None = None,
        weight_name: str = "sample_weight",
    ) -> Array:
        """Y as (rows, outputs), C-ordered and of the network's dtype; with weights a column more."""
        if sample_weight is None and self._are_ready(Y, rows):
            self._require_good(name, Y, check_finite)
            return Y  # type: ignore[no-any-return]
        read = self._labels_or_targets(Y, rows, check_finite, name, sample_weight, weight_name)
        return read if isinstance(read, np.ndarray) else read[:]

    def _labels_or_targets(
        self,
        Y: Any,
        rows: int,
        check_finite: bool,
        name: str,
        sample_weight: ArrayLike | None,
        weight_name: str,
    ) -> Array | Labels:
        """As `targets`, but labels stay what they are."""
        outputs, loss = self.output_count, self.loss
        sources.require_whole(name, Y)
        Y = self._as_column(name, Y)
        read: Array | Labels | None = None
        if loss.of_classes:
            read = targets.labels_of(name, Y, rows, outputs, self.dtype)
        if read is None:
            array = checks.as_floats(name, Y, self.dtype)
            self._require_targets(name, array, rows)
            self._require_good(name, array, check_finite)
            read = np.repeat(array, 2, axis=1) if loss.of_pairs else array
        if sample_weight is not None:
            read = targets.weighted(read, targets.sample_weights(weight_name, sample_weight, rows))
        return read if isinstance(read, Labels) else _plain(read)

    def target_rows(
        self,
        Y: Any,
        rows: int,
        check_finite: bool,
        name: str = "Y",
        *,
        sample_weight: ArrayLike | None = None,
        weight_name: str = "sample_weight",
    ) -> Array | Rows:
        """As `targets`, but of a large file only some rows at a time are copied or checked.

        Labels of classes stay labels. Targets with weights become an array of floats.
        """
        if sample_weight is None and self._are_ready(Y, rows):
            self._require_good(name, Y, check_finite)
            return Y  # type: ignore[no-any-return]
        array = self._as_column(name, sources.opened(name, Y))
        large = isinstance(array, np.ndarray) and array.ndim == 2 and sources.is_on_disk(array)
        whole = self.loss.of_pairs or sample_weight is not None
        if not large or whole or (self.loss.of_classes and array.shape[1] == 1):
            return self._labels_or_targets(array, rows, check_finite, name, sample_weight, weight_name)
        self._require_targets(name, array, rows)
        for block in sources.row_blocks(array):
            here = array[block]
            self.targets(here, len(here), check_finite, _name_of_block(name, block, array))
        if sources.is_read_as_stored(array, self.dtype):
            return Rows(np.asarray(array), self.dtype)
        return np.require(array, self.dtype, ("C", "A", "E"))

    def _are_ready(self, Y: Any, rows: int) -> bool:
        """Whether targets without weights are taken as they are: as `_is_ready`."""
        ready = sources.is_ready(Y, self.dtype) and Y.shape == (rows, self.target_count)
        return ready and not self.loss.of_pairs

    def _require_good(self, name: str, Y: Array, check_finite: bool) -> None:
        """ValueError for targets that are not finite, or none of the loss's."""
        if checks.flag("check_finite", check_finite):
            self._require_finite(name, Y)
            targets.require_values(name, Y, self.loss)

    def _require_targets(self, name: str, Y: Array, rows: int) -> None:
        checks.require_targets(name, Y, rows, self.target_count, labels=self.loss.of_classes)

    def _as_column(self, name: str, Y: Any) -> Any:
        """Targets (rows,) as (rows, 1) where each row has one; whatever else it is, as it is given."""
        if self.target_count > 1 or (type(Y) is np.ndarray and Y.ndim != 1):
            return Y
        array = checks.as_array(name, Y)
        return array[:, None] if array.ndim == 1 and len(array) else array

    # ---- both -----------------------------------------------------------------------------------------

    def batch(self, X: Any, Y: Any, sample_weight: ArrayLike | None, check_finite: bool) -> Samples:
        """Data of one batch, all in floats."""
        x = self.inputs(X, check_finite)
        y = self.targets(Y, len(x), check_finite, sample_weight=sample_weight)
        return Samples(x, y, self.output_count, checks.column_names(X))

    def samples_as_they_are(self, X: Any, Y: Any) -> Samples | None:
        """`samples` of arrays that need neither conversion nor explanation; their numbers are not looked at.
        None of all else."""
        if self._is_ready(X) and self._are_ready(Y, len(X)):
            return Samples(X.view(), Y.view(), self.output_count)
        return None

    def samples(self, X: Any, Y: Any, sample_weight: ArrayLike | None, check_finite: bool) -> Samples:
        """Data of which some rows are taken at a time."""
        x = self.input_rows(X, check_finite)
        y = self.target_rows(Y, len(x), check_finite, sample_weight=sample_weight)
        return Samples(x, y, self.output_count, checks.column_names(X))

    def validation(self, data: tuple[ArrayLike, ...] | None, check_finite: bool) -> Samples | None:
        """`fit`'s validation_data: (X, Y) or (X, Y, sample_weight), or None."""
        if data is None:
            return None
        if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
            raise TypeError("validation_data must be a pair (X, Y), or (X, Y, sample_weight)")
        x = self.input_rows(data[0], check_finite, "validation_data[0]")
        y = self.target_rows(
            data[1],
            len(x),
            check_finite,
            "validation_data[1]",
            sample_weight=data[2] if len(data) == 3 else None,
            weight_name="validation_data[2]",
        )
        samples = Samples(x, y, self.output_count)
        samples.require_some_weight("validation_data[2]", "judged")
        return samples


def _plain(array: Array) -> Array:
    """The array as compiled code can read it where it lies; a copy, unless it is so already."""
    if type(array) is np.ndarray and array.flags.c_contiguous and array.flags.aligned:
        return array
    return np.require(array, requirements=("C", "A", "E"))


def _name_of_block(name: str, rows: slice, array: Array) -> str:
    """What to call these rows of the array in an error message."""
    return name if rows == slice(0, len(array)) else f"{name}[{rows.start}:{rows.stop}]"
