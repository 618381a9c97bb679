"""A table with named columns, for tests that must not need pandas."""

import numpy as np


class Column:
    """A column of a table, as far as it is looked at."""

    def __init__(self, values, dtype=None):
        self.values = np.asarray(values) if dtype is None else np.array(values, dtype)

    @property
    def dtype(self):
        return self.values.dtype

    def to_numpy(self):
        return self.values


class Table:
    """A DataFrame, as far as it is looked at."""

    def __init__(self, **columns):
        self.contents = columns

    @property
    def columns(self):
        return list(self.contents)

    def __len__(self):
        return len(next(iter(self.contents.values())).values)

    def items(self):
        return self.contents.items()

    def to_numpy(self):
        return np.array([column.values for column in self.contents.values()], dtype=object).T
