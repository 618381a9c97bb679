"""MLPClassifier: classes, their probabilities, and sets of labels."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import type_of_target

from fastbp.sklearn import parameters
from fastbp.sklearn.base import Network
from fastbp.sklearn.inputs import FLOATS, Data, Labels, are_integers, classes_of, labels_of

Array = NDArray[Any]


class MLPClassifier(ClassifierMixin, Network):
    """scikit-learn's MLPClassifier on fastbp's engine: the same training, and more that it can do.

    hidden_layer_sizes ... max_fun : as in scikit-learn, whose documentation is the reference for them and for
        all attributes; errors are a ValueError that is a TypeError as well. What differs on purpose is in
        fastbp/sklearn/README.md.
    activation : also any other activation of fastbp's, or a list with one for each hidden layer.
    loss : None or "log_loss": the log loss; "categorical_crossentropy(0.1)" with label smoothing (three
        classes and more); "hinge", without probabilities; or "mse", "mae" or "huber" of probabilities and
        zeros and ones.
    class_weight : a dict {class: weight}, or "balanced"; times sample_weight.
    dropout, layer_norm : as in `fastbp.MLP`; dropout with solvers adam and sgd only.
    threads : at most so many; None: as many as Numba has, but one in a thread of somebody's pool.
    callbacks : one or several of `fastbp.callbacks`, called with the network inside; their history has
        val_loss and val_score where samples are held out.
    progress : whether to show a progress bar, as `MLP.fit` does.

    Attributes
    ----------
    Those of scikit-learn's, and model_, the `fastbp.MLP` inside. coefs_ and intercepts_ are views of its
    weights and biases: what is written into them, or put in their place, is what predicts.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: Any = 10,
        max_fun: int = 15000,
        loss: str | None = None,
        class_weight: Any = None,
        dropout: Any = 0.0,
        layer_norm: bool = False,
        threads: int | None = None,
        callbacks: Any = None,
        progress: bool = False,
    ) -> None:
        self._keep(locals())

    # ---- labels -----------------------------------------------------------------------------------------

    def _read(self, X: Any, y: Any, incremental: bool, goes_on: bool) -> tuple[Any, Any]:
        X, y = self._checked(X, y, reset=not goes_on)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._labels = labels_of(y)
            self.classes_ = self._labels.classes
        else:
            self._require_known(y)
        return X, y

    def _read_more(self, X: Any, y: Any) -> tuple[Any, Any]:
        X, y = self._checked(X, y, reset=False)
        self._require_classes(y)
        return X, y

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        X, y = self._validated(X, y, reset=reset, multi_output=True, dtype=FLOATS)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, y

    def _require_known(self, y: Any) -> None:
        """ValueError for labels that training cannot go on with."""
        if self.warm_start:
            classes = classes_of(y)
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to "
                    f"fit. Previously got {self.classes_}, `y` has {classes}"
                )
        else:
            self._require_classes(y)

    def _require_classes(self, y: Any) -> None:
        classes = classes_of(y)
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {classes}."
            )

    _labels: Labels

    def _targets(self, y: Any) -> Array:
        """(samples,) numbers of classes, or (samples, outputs) zeros and ones."""
        loss = self._output().loss
        if loss.startswith("categorical"):
            return self._labels.numbers(y)
        ones = self._labels.ones(y)
        return 2 * ones - 1 if loss == "hinge" else ones

    def _outputs(self, y: Any) -> int:
        return 1 if self._labels.kind == "binary" else len(self.classes_)

    def _output(self) -> parameters.Output:
        multiclass = self._labels.kind == "multiclass"
        return parameters.output_of_classifier(type(self).__name__, self.loss, multiclass)

    def _gives_probabilities(self) -> bool:
        if self.loss == "hinge":
            raise AttributeError("with loss='hinge' there are no probabilities")
        return True

    @property
    def _threshold(self) -> float:
        """Outputs above it say yes."""
        return 0.0 if self.out_activation_ == "identity" else 0.5

    def _row_weights(self, sample_weight: Any, X: Any, y: Any) -> Array | None:
        weights = super()._row_weights(sample_weight, X, y)
        if self.class_weight is None:
            return weights
        of_classes: Array = compute_sample_weight(self.class_weight, y).astype(X.dtype)
        return of_classes if weights is None else weights * of_classes

    def _strata(self, data: Data) -> Array | None:
        """What a share of the samples that is held out shall have the same shares of."""
        return data.y > 0 if self.n_outputs_ == 1 else None

    def _score(self, data: Data) -> float:
        """The accuracy, or NaN where the network's outputs are not finite."""
        out = self.model_.predict(data.X, check_finite=False)
        if not np.isfinite(out).all():
            return float("nan")
        if self._labels.kind == "multiclass":
            right = out.argmax(axis=1) == (data.y if data.y.ndim == 1 else data.y.argmax(axis=1))
        else:
            right = ((out > self._threshold) == (data.y > self._threshold)).all(axis=1)
        return float(np.average(right, weights=data.weights))

    # ---- what users call --------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
        """Train a new network, or with warm_start go on with the one there is.

        X : (samples, features), an array, a table or a sparse matrix. y : (samples,) labels of any kind, or
            (samples, labels) zeros and ones. sample_weight : (samples,), at least 0; a batch whose weights
            are all 0 is skipped.
        X_val, y_val : samples to judge the network by after each epoch, instead of a share of X with
            early_stopping, and without it just for `validation_scores_` and callbacks.

        After an error the estimator is as it was before. Ctrl-C ends training with a warning.
        """
        return self._fit(X, y, sample_weight, (X_val, y_val), incremental=False)

    @available_if(lambda self: self._has_partial_fit())
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """One more epoch, with the optimizer's state; `classes`, for the first call, are all there will be.

        X, y and sample_weight as in `fit`.
        """
        before = dict(vars(self))
        try:
            self._meet_classes(y, classes)
            return self._fit(X, y, sample_weight, (None, None), incremental=True)
        except BaseException:
            for name in ("classes_", "_labels"):
                if name not in before:
                    self.__dict__.pop(name, None)
            raise

    def _meet_classes(self, y: Any, classes: Any) -> None:
        """What `partial_fit` is told of classes; ValueError if it contradicts what it knows."""
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if classes is None:
            return
        if known is not None:
            if not np.array_equal(known, classes_of(classes)):
                raise ValueError(
                    f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}"
                )
            return
        labels = labels_of(y if type_of_target(y).startswith("multilabel") else classes)
        self._labels = labels._replace(classes=classes_of(classes))
        self.classes_ = self._labels.classes

    def predict(self, X: Any) -> Array:
        """(samples,) labels, or (samples, labels) zeros and ones, for X (samples, features)."""
        out = self._outputs_for(X)
        labels: Array = self._labels.predicted(out, self._threshold)
        return labels

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The accuracy, of sets of labels the share of those that are right whole; arguments as in `fit`."""
        known = vars(self).get("classes_")
        if sample_weight is None and known is not None and are_integers(known) and are_integers(y):
            predicted = self.predict(
                X
            )  # compared here, where scikit-learn looks at both for longer than that
            if predicted.shape == y.shape:
                return float(np.mean(predicted == y))
        return float(super().score(X, y, sample_weight=sample_weight))

    @available_if(lambda self: self._gives_probabilities())
    def predict_proba(self, X: Any) -> Array:
        """(samples, classes) probabilities, classes as in `classes_`."""
        y_pred = self._outputs_for(X)
        return np.hstack([1 - y_pred, y_pred]) if self.n_outputs_ == 1 else y_pred

    @available_if(lambda self: self._gives_probabilities())
    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`."""
        y_prob = self.predict_proba(X)
        log: Array = np.log(y_prob, out=y_prob)
        return log

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
