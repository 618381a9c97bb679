"""Pictures with matplotlib (the extra `plot`): of a training run, a model, a diagnosis.

matplotlib is imported by the first picture; ImportError says how to get it. What is returned can be changed
further, and shown or saved: `fastbp.plot.history(history).savefig("run.png")`.
"""

from __future__ import annotations

import textwrap
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastbp import checks, metrics

Array = NDArray[Any]

INK = "#22313f"
FAINT = "#8795a1"
GRID = "#e3e8ec"
TRAINING, VALIDATION = "#1f77b4", "#d9622b"
# Of up to ten classes; they repeat from there on.
CLASSES = (
    *("#1f77b4", "#d9622b", "#2a9d5c", "#8c5cc4", "#c9a227"),
    *("#17a2b8", "#c2486f", "#7f7f7f", "#8c564b", "#9acd32"),
)
MARGIN = 0.05  # of the data's range, around a decision boundary


# What is drawn is known here by its shape only: histories, models and diagnoses offer these pictures
# themselves, so that their modules stand above this one.


class Curves(Protocol):
    """What `history` draws: a `fastbp.History`."""

    best_epoch: int | None

    @property
    def epochs(self) -> int: ...
    @property
    def loss(self) -> NDArray[np.float64]: ...
    @property
    def val_loss(self) -> NDArray[np.float64]: ...
    @property
    def val_metrics(self) -> dict[str, NDArray[np.float64]]: ...


class Layers(Protocol):
    """What `diagnosis` draws: what `MLP.diagnose` returned."""

    layers: list[Any]
    verdicts: list[str]


class Table(Protocol):
    """What `sweep` draws: a `fastbp.many.table.Sweep`."""

    rows: list[dict[str, Any]]
    parameters: list[str]
    metric: str


class Members(Protocol):
    """What `band` draws: a `fastbp.Ensemble`."""

    def __len__(self) -> int: ...
    def mean_and_std(self, X: Any) -> tuple[Array, Array]: ...


def history(history: Curves) -> Any:
    """Losses over the epochs and a panel for each metric, with the best epoch of early stopping: a Figure.

    The losses' axis is logarithmic where they span more than a factor of ten. ValueError without epochs.
    """
    if not history.epochs:
        raise ValueError("the history has no epochs to draw")
    panels = {"loss": [("training", history.loss, TRAINING)]}
    if history.val_loss.size:
        panels["loss"].append(("validation", history.val_loss, VALIDATION))
    for name, values in history.val_metrics.items():
        panels[name] = [("validation", values, VALIDATION)]
    figure, cells = _figure(1, len(panels), width=6.0 if len(panels) == 1 else 4.6, height=3.8)
    epochs = np.arange(1, history.epochs + 1)
    marker = "o" if history.epochs < 20 else None
    for axes, (name, curves) in zip(cells[0], panels.items(), strict=True):
        for label, values, color in curves:
            axes.plot(epochs, values, color=color, label=label, marker=marker, markersize=4)
        if history.best_epoch is not None:
            best = f"best: epoch {history.best_epoch}"
            axes.axvline(history.best_epoch, color=FAINT, linestyle=":", label=best, zorder=0)
        axes.set_title(name, loc="left")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        _frame(axes)
    losses = np.concatenate([values for _, values, _ in panels["loss"]])
    losses = losses[np.isfinite(losses)]
    if losses.size and losses.min() > 0 and losses.max() > 10 * losses.min():
        cells[0][0].set_yscale("log")
    return figure


def decision_boundary(
    model: Any, X: ArrayLike, Y: ArrayLike, *, axes: Any = None, resolution: int = 200
) -> Any:
    """What a model of two inputs predicts over the plane, and the data on it: an Axes, given or new.

    X is (rows, 2), Y (rows, outputs) or labels (rows,) as in `fastbp.metrics`. Classes are areas, the paler
    the closer the decision, and rows that are misclassified have a ring around them. One output whose targets
    are not classes is a map of its values. resolution: points at which the model is asked, in each direction.
    ValueError for other than two inputs.
    """
    if model.layer_sizes[0] != 2:
        raise ValueError(
            f"a decision boundary needs a model with 2 inputs, this one has {model.layer_sizes[0]}"
        )
    checks.count("resolution", resolution, low=2)
    points = checks.as_floats("X", X, np.dtype(np.float64))
    checks.require_matrix("X", points, "(rows, 2)")
    predictions = model.predict(points)
    classes = _classes(np.asarray(Y), predictions)
    if axes is None:
        axes = _figure(1, 1, width=5.6, height=4.8)[1][0][0]
    low, high = points.min(axis=0), points.max(axis=0)
    pad = MARGIN * np.where(high > low, high - low, 1)
    x, y = (np.linspace(a, b, resolution) for a, b in zip(low - pad, high + pad, strict=True))
    plane = model.predict(np.column_stack([c.ravel() for c in np.meshgrid(x, y)]))
    plane = plane.reshape(resolution, resolution, -1)
    box = (x[0], x[-1], y[0], y[-1])
    if classes is None:
        _value_map(axes, plane[:, :, 0], box, points, np.asarray(Y, np.float64).ravel())
    else:
        labels, threshold = classes
        _class_map(axes, plane, (x, y), box, threshold)
        _class_dots(axes, points, labels, _decided(predictions, threshold))
    axes.set_xlim(x[0], x[-1])
    axes.set_ylim(y[0], y[-1])
    axes.set_xlabel("input 1")
    axes.set_ylabel("input 2")
    return axes


def _classes(Y: Array, predictions: Array) -> tuple[NDArray[np.int64], float | None] | None:
    """(rows,) the class of each row, and one output's threshold; None if Y is no classes but quantities."""
    targets, _ = metrics._arrays(Y, predictions)
    if predictions.shape[1] > 1:
        return metrics._labels(targets, predictions.shape[1]), None
    try:
        positive, threshold = metrics._positive(targets)
    except ValueError:
        return None
    return positive.astype(np.int64), threshold


def _value_map(axes: Any, plane: Array, box: tuple[Any, ...], points: Array, values: Array) -> None:
    low, high = min(plane.min(), values.min()), max(plane.max(), values.max())
    options = {"cmap": "viridis", "vmin": low, "vmax": high}
    image = axes.imshow(plane, extent=box, origin="lower", aspect="auto", interpolation="bilinear", **options)
    axes.scatter(*points.T, c=values, edgecolors="white", linewidths=0.8, s=28, **options)
    axes.figure.colorbar(image, ax=axes, label="prediction (area), target (dots)")


def _class_map(
    axes: Any, plane: Array, grid: tuple[Array, Array], box: tuple[Any, ...], threshold: float | None
) -> None:
    from matplotlib.colors import to_rgb

    here = _decided(plane, threshold)
    count = 2 if threshold is not None else plane.shape[-1]
    colors = np.array([to_rgb(CLASSES[c % len(CLASSES)]) for c in range(count)])
    strength = 0.12 + 0.38 * _sureness(plane, threshold)
    shade = 1 - strength[:, :, None] * (1 - colors[here])
    axes.imshow(shade, extent=box, origin="lower", aspect="auto", interpolation="nearest")
    for c in range(1, count) if count == 2 else range(count):  # the border of two is that of either
        if 0 < (here == c).sum() < here.size:
            axes.contour(*grid, (here == c).astype(float), levels=[0.5], colors=INK, linewidths=0.9)


def _class_dots(axes: Any, points: Array, labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> None:
    options = {"edgecolors": "white", "linewidths": 0.8, "s": 28}
    for c in np.unique(labels):
        mine = points[labels == c].T
        axes.scatter(*mine, color=CLASSES[c % len(CLASSES)], label=f"class {c}", zorder=3, **options)
    wrong = points[predicted != labels].T
    if wrong.size:
        label = f"misclassified ({wrong.shape[1]})"
        axes.scatter(*wrong, facecolors="none", edgecolors=INK, s=90, linewidths=1.2, label=label, zorder=4)
    axes.legend(frameon=True, fontsize="small")


def _decided(outputs: Array, threshold: float | None) -> NDArray[np.int64]:
    """The class for outputs (..., outputs)."""
    if threshold is None:
        return np.asarray(outputs.argmax(axis=-1), np.int64)
    return np.asarray(outputs[..., 0] > threshold, np.int64)


def _sureness(outputs: Array, threshold: float | None) -> Array:
    """How far from the decision outputs (..., outputs) are: 0 at it, 1 where they are farthest."""
    if threshold is None:
        second, best = np.moveaxis(np.sort(outputs, axis=-1)[..., -2:], -1, 0)
        distance = best - second
    else:
        distance = np.abs(outputs[..., 0] - threshold)
    farthest = distance.max()
    result: Array = distance / farthest if farthest > 0 else distance
    return result


def weights(model: Any) -> Any:
    """Every layer's weights as a map, inputs down and units across, and below how they are spread: a Figure.

    Colors are white at 0 and as strong at the layer's largest size on both sides.
    """
    model.parameters.adopt()
    depth, activations = len(model.weights), model.architecture.activations
    figure, cells = _figure(2, depth, width=max(3.4, 5.2 - 0.6 * depth), height=6.4, ratios=[2, 1])
    for i, (W, b, activation) in enumerate(zip(model.weights, model.biases, activations, strict=True)):
        top, below = cells[0][i], cells[1][i]
        largest = float(np.abs(W).max()) or 1.0
        image = top.imshow(
            W, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="nearest"
        )
        figure.colorbar(image, ax=top)
        top.set_title(f"layer {i + 1}: {W.shape[0]} \u2192 {W.shape[1]}, {activation.name}", loc="left")
        top.set_xlabel("unit")
        top.set_ylabel("input")
        for axis in (top.xaxis, top.yaxis):
            axis.get_major_locator().set_params(integer=True)
        bins = min(60, max(10, round(2 * W.size ** (1 / 3))))
        below.hist(W.ravel(), bins=bins, color=TRAINING)
        for bias in b if len(b) <= 64 else np.percentile(b, np.linspace(0, 100, 65)):
            below.axvline(bias, ymax=0.06, color=VALIDATION, linewidth=1)
        below.set_xlabel("weights (bars), biases (lines)")
        below.set_ylabel("number of weights")
        _frame(below)
    return figure


def diagnosis(diagnosis: Layers) -> Any:
    """What `MLP.diagnose` found: activations, units without gradient, error signal, and gradients; a Figure.

    The verdicts stand below the panels.
    """
    layers = diagnosis.layers
    number = np.array([s.layer for s in layers])
    figure, cells = _figure(1, 4, width=3.4, height=4.2)
    activations, silent, signal, ratio = cells[0]
    mean, spread = np.array([s.mean for s in layers]), np.array([s.spread for s in layers])
    activations.errorbar(number, mean, spread, fmt="o", color=TRAINING, capsize=4)
    activations.set_title("activations: mean, spread", loc="left")
    silent.bar(number - 0.2, [100 * s.dead_share for s in layers], 0.4, color=VALIDATION, label="dead")
    silent.bar(
        number + 0.2, [100 * s.saturated_share for s in layers], 0.4, color=CLASSES[4], label="saturated"
    )
    silent.set_ylim(0, 100)
    silent.set_title("units without gradient, %", loc="left")
    silent.legend(frameon=False)
    _log_bars(signal, number, [s.delta for s in layers], "error signal (of z)")
    _log_bars(ratio, number, [s.ratio for s in layers], "gradient / weights, |dW| / |W|")
    for axes in cells[0]:
        axes.set_xticks(number)
        axes.set_xlim(0.4, len(layers) + 0.6)
        axes.set_xlabel("layer")
        _frame(axes)
    lines = [
        line
        for verdict in diagnosis.verdicts
        for line in textwrap.wrap(verdict, 150, subsequent_indent="   ")
    ]
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="medium", color=INK)
    return figure


def _log_bars(axes: Any, number: Array, values: list[float], title: str) -> None:
    shown = np.array(values)
    shown[~np.isfinite(shown)] = 0  # no bar, as for 0
    axes.bar(number, shown, 0.6, color=TRAINING)
    if (shown > 0).any():
        axes.set_yscale("log")
        axes.set_ylim(shown[shown > 0].min() / 10, shown.max() * 10)
    axes.set_title(title, loc="left")


# ---- matplotlib ---------------------------------------------------------------------------------------


def sweep(table: Table) -> Any:
    """The metric against each parameter of a sweep, a dot for each configuration, the best one marked: a
    Figure.

    Numbers that span more than a factor of ten have a logarithmic axis; other values stand side by side.
    """
    names = [name for name in table.parameters if len({str(row[name]) for row in table.rows}) > 1]
    names = names or table.parameters
    figure, cells = _figure(1, len(names), width=6.0 if len(names) == 1 else 3.6, height=3.4)
    scores = [row[table.metric] for row in table.rows]
    for axes, name in zip(cells[0], names, strict=True):
        values = [row[name] for row in table.rows]
        if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
            if min(values) > 0 and max(values) > 10 * min(values):
                axes.set_xscale("log")
            places = values
        else:
            texts = [_text_of(value) for value in values]
            labels = sorted(set(texts))
            places = [labels.index(text) for text in texts]
            axes.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 3 else 0)
        axes.scatter(places, scores, color=TRAINING, alpha=0.6, s=18)
        axes.scatter(places[:1], scores[:1], color=VALIDATION, s=40, label="best")
        axes.set_title(name.replace("_", " "), loc="left")
    cells[0][0].set_ylabel(table.metric)
    cells[0][0].legend(frameon=False)
    return figure


def _text_of(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def band(ensemble: Members, X: ArrayLike, Y: ArrayLike, *, points: int = 200) -> Any:
    """What an ensemble of one input and one output makes of it: its mean, one and two standard deviations of
    its members around it, beyond the data X (rows,) or (rows, 1) and Y, too: a Figure.

    ValueError for data of more than one column.
    """
    x, y = (np.asarray(values, np.float64) for values in (X, Y))
    if any(values.ndim > 2 or (values.ndim == 2 and values.shape[1] != 1) for values in (x, y)):
        raise ValueError(f"a band is for one input and one output, X has shape {x.shape}, Y {y.shape}")
    x, y = x.ravel(), y.ravel()
    margin = 0.25 * (x.max() - x.min() or 1.0)
    grid = np.linspace(x.min() - margin, x.max() + margin, points)
    mean, std = (part[:, 0].astype(np.float64) for part in ensemble.mean_and_std(grid[:, None]))
    figure, cells = _figure(1, 1, width=6.4, height=3.8)
    axes = cells[0][0]
    for times, alpha in ((2, 0.15), (1, 0.3)):
        label = f"{times} standard deviation{'s' if times > 1 else ''}"
        axes.fill_between(
            grid, mean - times * std, mean + times * std, color=TRAINING, alpha=alpha, lw=0, label=label
        )
    axes.plot(grid, mean, color=TRAINING, label="mean")
    axes.scatter(x, y, color=INK, s=8, alpha=0.6, label="data", zorder=3)
    axes.set_title(f"{len(ensemble)} networks", loc="left")
    axes.legend(frameon=False)
    return figure


def _figure(rows: int, columns: int, *, width: float, height: float, ratios: list[int] | None = None) -> Any:
    """A new figure, and its axes as [row][column]; width is a column's."""
    try:
        import matplotlib.pyplot
    except ImportError:
        raise ImportError(
            "fastbp.plot needs matplotlib, which is not installed: pip install matplotlib"
        ) from None
    return matplotlib.pyplot.subplots(
        rows,
        columns,
        figsize=(width * columns, height),
        squeeze=False,
        layout="constrained",
        height_ratios=ratios,
    )


def _frame(axes: Any) -> None:
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
