"""What compiled code raises: Numba makes the exceptions of their arguments, and these make the sentences."""

from __future__ import annotations


class WidthError(ValueError):
    """An array has not as many columns as the model has inputs or outputs."""

    def __init__(self, name: str, columns: int, what: str, expected: int) -> None:
        super().__init__(
            f"{name} has {columns} columns, the model has {expected} {what}: "
            f"{name} must be (rows, {expected})"
        )


class RowsError(ValueError):
    """An array has not as many rows as X, or X has none."""

    def __init__(self, name: str, rows: int, expected: int) -> None:
        if name == "X":
            super().__init__("X has no rows, expected one or more")
        else:
            super().__init__(f"{name} has {rows} rows, X has {expected}")


class TooManyRowsError(ValueError):
    """A batch has more rows than the state has room for."""

    def __init__(self, rows: int, most: int) -> None:
        super().__init__(
            f"X has {rows} rows, the state is for steps of up to {most}: "
            f"training_state(..., batch_size={rows})"
        )


class OtherModelError(ValueError):
    """A state is not the model's."""

    def __init__(self) -> None:
        super().__init__(
            "the state is another model's: each has its own, from model.training_state(optimizer)"
        )


class NoStepsLeftError(RuntimeError):
    """More steps were asked for than the optimizer's numbers are there for."""

    def __init__(self) -> None:
        super().__init__(
            "the state has no learning rates for further steps in this call of compiled code: call it again, "
            "or ask for more with training_state(..., steps=)"
        )


class TargetError(ValueError):
    """A target is none that the loss is defined for."""

    def __init__(self, value: float) -> None:
        super().__init__(f"Y holds {value:g}, which the model's loss takes for no target")


class TargetSumError(ValueError):
    """A row of probabilities has not the sum 1."""

    def __init__(self, row: int, total: float) -> None:
        super().__init__(f"row {row} of Y has the sum {total:.7g}, the model's loss needs probabilities")


class NotFiniteError(ValueError):
    """There is a NaN or an infinity."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} holds NaN or infinity")


class SharedMemoryError(ValueError):
    """What is to be written lies where something else is read."""

    def __init__(self, name: str, other: str) -> None:
        super().__init__(f"{name} shares memory with {other}, which are read while {name} is written")
