"""What `sweep` returns: configurations and how well they did, best first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import ArrayLike

from fastbp.many import grid as grids
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer


class Sweep:
    """A table of configurations, best first; one that diverged on a fold stands last.

    rows : a dict for each: the parameters of the grid; under `metric` the mean over the folds, "std" their
        standard deviation, "scores" each fold's; "epochs_done", less where `halving` has let it go.
    parameters : the names of the grid. metric : the name of what is compared; more_is_better : which way.
    """

    def __init__(
        self,
        rows: list[dict[str, Any]],
        parameters: list[str],
        metric: str,
        more_is_better: bool,
        base: Network,
        optimizer: Optimizer,
        defaults: tuple[int, int],
    ) -> None:
        self.rows, self.parameters = rows, parameters
        self.metric, self.more_is_better = metric, more_is_better
        self._base, self._optimizer, self._defaults = base, optimizer, defaults

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]

    @property
    def best(self) -> dict[str, Any]:
        """The parameters of the best configuration."""
        return {name: self.rows[0][name] for name in self.parameters}

    def fit(self, X: ArrayLike, Y: ArrayLike, *, place: int = 0, **options: Any) -> Network:
        """A new model of the configuration in that place, trained on all of these data as in the sweep.

        options : more of `MLP.fit`'s, such as callbacks.
        """
        configuration = {name: self.rows[place][name] for name in self.parameters}
        epochs, batch_size = self._defaults
        model: Any = grids.model_of(self._base, configuration)
        settings = {
            "optimizer": grids.optimizer_of(self._optimizer, configuration),
            "epochs": configuration.get("epochs", epochs),
            "batch_size": configuration.get("batch_size", batch_size),
        }
        model.fit(X, Y, **{**settings, **options})
        made: Network = model
        return made

    def to_pandas(self) -> Any:
        """A pandas.DataFrame of the rows. ImportError if pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ImportError(
                "Sweep.to_pandas needs pandas, which is not installed: pip install pandas"
            ) from None
        return pandas.DataFrame(self.rows)

    def plot(self) -> Any:
        """The metric against each parameter, as `fastbp.plot.sweep` draws it: a matplotlib Figure.

        ImportError if matplotlib is not installed.
        """
        from fastbp import plot

        return plot.sweep(self)

    def text(self, most: int = 20) -> str:
        """The first so many rows as a table."""
        names = [*self.parameters, self.metric, "std"]
        cells = [names, *([_cell(row[name]) for name in names] for row in self.rows[:most])]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
        ]
        more = len(self.rows) - most
        return "\n".join(lines + ([f"... and {more} more"] if more > 0 else []))

    def __repr__(self) -> str:
        return f"Sweep of {len(self)} configurations, best first:\n{self.text()}"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
