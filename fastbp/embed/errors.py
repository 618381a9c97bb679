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


class NotFiniteError(ValueError):
    """There is a NaN or an infinity."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} holds NaN or infinity")


class SharedMemoryError(ValueError):
    """What is to be written lies where something else is read."""

    def __init__(self, name: str, other: str) -> None:
        super().__init__(f"{name} shares memory with {other}, which are read while {name} is written")
