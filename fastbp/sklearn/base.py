"""What both estimators are: from what `fit` is given to a trained network."""

from __future__ import annotations

import itertools
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

import fastbp
from fastbp.network.spare_plans import SparePlans
from fastbp.sklearn import initial, parameters
from fastbp.sklearn.inputs import NOT_GIVEN, Data, are_plain, sample_weights
from fastbp.sklearn.lbfgs import Lbfgs
from fastbp.sklearn.remembering import Remembered
from fastbp.sklearn.stochastic import Stochastic

Array = NDArray[Any]

# What is prepared for networks, and how many threads turned out to suit each: a grid search fits the same
# design again and again. It belongs to all estimators in the process, which take from it and put back under
# its lock; large networks, whose training takes long against preparing it, leave nothing.
PLANS = SparePlans(most=8, most_bytes=32 << 20)

# Rows whose hidden activations are in memory at once.
TRANSFORM_ROWS = 4096
# The names of constructors' arguments, which scikit-learn finds out by inspection at each `get_params`,
# several times for every fit of a grid search; nobody changes an entry that is there.
NAMES: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()
# What training adds to, or compares with, from call to call where it goes on.
COURSE = (
    "loss_",
    "best_loss_",
    "loss_curve_",
    "validation_scores_",
    "best_validation_score_",
    "_best_flat",
    "_no_improvement_count",
    "_optimizer",
)


class Network(TransformerMixin, ClassNamePrefixFeaturesOutMixin, Stochastic, Lbfgs, BaseEstimator):
    """A multi-layer perceptron with scikit-learn's parameters and attributes; the estimators' base class."""

    def _keep(self, arguments: dict[str, Any]) -> None:
        """Set the constructor's arguments as attributes of the same names, untouched, as scikit-learn wants
        it; they are checked when `fit` is called."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they are now. deep : with those of estimators among them, which
        only a subclass may have."""
        kind = type(self)
        if kind not in NAMES:
            NAMES[kind] = tuple(super().get_params(deep=False))
        given = {name: getattr(self, name) for name in NAMES[kind]}
        if deep and any(hasattr(value, "get_params") for value in given.values()):
            given = super().get_params(deep=True)
        return given

    # ---- what an estimator of a kind decides for itself -------------------------------------------------

    def _read(self, X: Any, y: Any, incremental: bool, goes_on: bool) -> tuple[Any, Any]:
        """X and y of a call of `fit`, checked and remembered; X as floats, y as `_targets` takes it."""
        raise NotImplementedError

    def _targets(self, y: Any) -> Array:
        """Of what `_read` returned as y, what the network's loss takes."""
        raise NotImplementedError

    def _outputs(self, y: Any) -> int:
        """How many outputs that needs."""
        raise NotImplementedError

    def _output(self) -> parameters.Output:
        """What the last layer is for."""
        raise NotImplementedError

    def _row_weights(self, sample_weight: Any, X: Any, y: Any) -> Array | None:
        """(samples,) what each sample weighs; None: all the same."""
        return sample_weights(sample_weight, X)

    # ---- training ---------------------------------------------------------------------------------------

    def _fit(self, X: Any, y: Any, sample_weight: Any, held_out: tuple[Any, Any], incremental: bool) -> Self:
        """One call of `fit` or `partial_fit`; whatever it raises, the estimator is as it was before."""
        goes_on = hasattr(self, "coefs_") and (incremental or bool(self.warm_start))
        remembered = Remembered(self, in_place=goes_on)
        try:
            self._check_parameters()
            self._train(X, y, sample_weight, held_out, incremental, goes_on)
        except BaseException:
            remembered.restore()
            raise
        return self

    def _check_parameters(self) -> None:
        name = type(self).__name__
        parameters.check(name, vars(self))
        layers = len(parameters.layer_sizes(self.hidden_layer_sizes))
        if not isinstance(self.activation, str) and len(self.activation) != layers:
            expected = f"a name, or a list of one for each of the {layers} hidden layers"
            raise parameters.refused(name, "activation", expected, self.activation)
        if self.solver == "lbfgs" and self._drops:
            raise parameters.refused(name, "dropout", "0 with solver='lbfgs'", self.dropout)

    def _train(
        self, X: Any, y: Any, sample_weight: Any, held_out: tuple[Any, Any], incremental: bool, goes_on: bool
    ) -> None:
        hidden = parameters.layer_sizes(self.hidden_layer_sizes)
        X, y = self._read(X, y, incremental, goes_on)
        weights = self._row_weights(sample_weight, X, y)
        data = Data(X, self._targets(y), weights)
        self.n_outputs_ = self._outputs(y)
        validation = self._held_out(*held_out)
        self._draws = initial.Draws(self.random_state)
        if not goes_on:
            for name in COURSE:
                self.__dict__.pop(name, None)
            self.t_ = 0
        self._make_model([X.shape[1], *hidden, self.n_outputs_], X.dtype, goes_on)
        self.model_.backend.share_plans(PLANS)
        if self.solver == "lbfgs":
            self._fit_lbfgs(data)
        else:
            self._fit_stochastic(data, validation, incremental)
        del self._draws
        self._require_finite()
        if not incremental:  # which has the parameters packed for the next call
            self.model_.backend.give_plans_back()

    def _make_model(self, sizes: list[int], dtype: np.dtype[Any], goes_on: bool) -> None:
        """`model_`, with the parameters that training begins from."""
        self.out_activation_, output, loss = self._output()
        self.n_layers_ = len(sizes)
        options = initial.Options(
            tuple(sizes),
            initial.hidden_activations(self.activation),
            output,
            loss,
            l2=float(self.alpha),
            # SciPy's minimizer works in float64, and needs that many digits
            dtype="float32" if dtype == np.float32 and self.solver != "lbfgs" else "float64",
            dropout=self.dropout,
            layer_norm=self.layer_norm,
            threads=initial.most_threads(self.threads),
        )
        if not goes_on:
            seed = self._seed()  # before the weights are drawn
            drawn = initial.draw(sizes, self.activation, self._draws, dtype)
            model = initial.network(options._replace(seed=seed), *drawn)
        else:
            model = self._model_going_on(options)
        self.model_, self._options = model, options
        self.coefs_, self.intercepts_ = list(model.weights), list(model.biases)

    def _model_going_on(self, options: initial.Options) -> fastbp.MLP:
        """The model that the estimator has, or one of other options with its parameters."""
        shapes = [tuple(np.shape(coefs)) for coefs in self.coefs_]
        expected = list(itertools.pairwise(options.layer_sizes))
        if shapes != expected:
            raise ValueError(
                f"training goes on with weights of the shapes {shapes}, but hidden_layer_sizes="
                f"{self.hidden_layer_sizes!r}, X and y need {expected}: warm_start=False begins anew"
            )
        before: fastbp.MLP | None = vars(self).get("model_")
        if before is None:  # whoever set coefs_ has made no model
            return initial.network(options._replace(seed=self._seed()), self.coefs_, self.intercepts_)
        self._network()
        if options == self._options:
            return before
        same_seed = options._replace(seed=before.architecture.seed or 0)
        model = initial.network(same_seed, before.weights, before.biases)
        if model.gains and before.gains:
            model.gains = before.gains
        if model.dtype == before.dtype and len(model.parameters) == len(before.parameters):
            model.parameters.owner = before.parameters.owner  # whose state the optimizer has
        model.streams.steps_trained = before.streams.steps_trained
        return model

    @property
    def _drops(self) -> bool:
        """Whether there is dropout."""
        return bool(np.any(np.asarray(self.dropout) != 0))

    def _seed(self) -> int:
        """What dropout draws from; without it scikit-learn's generator shall not be disturbed."""
        return int(self._draws.generator().randint(1 << 31)) if self._drops else 0

    def _held_out(self, X_val: Any, y_val: Any) -> Data | None:
        """The caller's validation data."""
        if (X_val is None) != (y_val is None):
            missing, given = ("X_val", "y_val") if X_val is None else ("y_val", "X_val")
            raise ValueError(f"{given} is given, {missing} is not: give both or none of them")
        if X_val is None:
            return None
        X, y = self._read_more(X_val, y_val)
        return Data(X, self._targets(y))

    # ---- what a fitted network does ---------------------------------------------------------------------

    def _network(self) -> fastbp.MLP:
        """The model, with what was put into `coefs_` and `intercepts_`."""
        check_is_fitted(self, "model_")
        model: fastbp.MLP = self.model_
        mine, theirs = [*self.coefs_, *self.intercepts_], [*model.weights, *model.biases]
        if len(mine) != len(theirs) or any(a is not b for a, b in zip(mine, theirs, strict=True)):
            model.parameters.put(self.coefs_, self.intercepts_)
            self.coefs_, self.intercepts_ = list(model.weights), list(model.biases)
        return model

    def _inputs(self, X: Any) -> Any:
        """X checked, for a fitted network."""
        return self._validated(X, reset=False)

    def _validated(self, X: Any, y: Any = NOT_GIVEN, *, reset: bool, **how: Any) -> Any:
        """X, or X and y, as scikit-learn's `validate_data` returns them. reset : whether the columns of X are
        remembered, or compared with those that are. (Its looks at plain arrays would take as long as an epoch
        of a small network, and change nothing.)"""
        if (reset or not hasattr(self, "feature_names_in_")) and are_plain(X, y):
            if reset:
                self.n_features_in_ = X.shape[1]
                self.__dict__.pop("feature_names_in_", None)
            if getattr(self, "n_features_in_", None) == X.shape[1]:
                return X if y is NOT_GIVEN else (X, y)
        return validate_data(self, X, y, accept_sparse="csr", order="C", reset=reset, **how)

    def _outputs_for(self, X: Any) -> Array:
        """(samples, outputs): what the last layer gives."""
        model = self._network()
        model.backend.share_plans(PLANS)
        return model.predict(self._inputs(X), check_finite=False)

    def transform(self, X: Any) -> Array:
        """The activations (samples, units) of the last hidden layer; X itself where there is none.

        X as in `predict`.
        """
        model = self._network()
        X = self._inputs(X)
        if self.n_layers_ == 2:
            inputs: Array = X
            return inputs
        out = np.empty((X.shape[0], self._n_features_out), model.dtype)
        for start in range(0, len(out), TRANSFORM_ROWS):
            rows = slice(start, start + TRANSFORM_ROWS)
            out[rows] = model.forward(X[rows], check_finite=False).a[-2]
        return out

    @property
    def _n_features_out(self) -> int:
        """How many columns `transform` returns, for the names that scikit-learn gives them."""
        return int(self.model_.layer_sizes[-2])

    def _has_partial_fit(self) -> bool:
        if self.solver not in parameters.STOCHASTIC:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    def __getstate__(self) -> dict[str, Any]:
        if "model_" in vars(self):
            self._network()  # so that coefs_ and intercepts_ are the model's own
        state: dict[str, Any] = dict(super().__getstate__())
        if "model_" in state:
            del state["coefs_"], state["intercepts_"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_" in vars(self):
            self.coefs_, self.intercepts_ = list(self.model_.weights), list(self.model_.biases)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
