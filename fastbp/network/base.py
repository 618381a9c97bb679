"""What `fastbp.MLP` and `fastbp.reference.MLP` share: everything but the computation.

Parameters, batches, shuffling, history, Ctrl-C and the watch for NaN are here; a subclass supplies the
forward pass, the backward pass and the loop over a chunk of training steps.
"""

from __future__ import annotations

import copy
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastbp import checks
from fastbp.callbacks import Callback, Callbacks
from fastbp.history import History
from fastbp.inputs import sources
from fastbp.inputs.reader import Reader
from fastbp.inputs.samples import ClassWeight, Samples, split_weights
from fastbp.inputs.sources import Rows
from fastbp.inputs.targets import warn_if_out_of_reach
from fastbp.metrics import Function, chosen
from fastbp.network.architecture import Architecture
from fastbp.network.parameters import Parameters
from fastbp.network.results import Gradients, Trace
from fastbp.network.streams import Streams
from fastbp.optimizers import Optimizer, State
from fastbp.training.batch_run import BatchRun
from fastbp.training.batches import Batches, BatchSource, gives_batches, refuse_for_batches
from fastbp.training.checkpoint import Checkpoints
from fastbp.training.run import Run
from fastbp.training.validation import Validation

if TYPE_CHECKING:
    from fastbp.inspection.diagnosis import Diagnosis
    from fastbp.inspection.gradient_check import GradientCheck

Array = NDArray[Any]

# Rows of a large data set that are evaluated at once (predict, loss): bounds the memory and the wait.
EVALUATE_MULTIPLY_ADDS = 20_000_000
BATCH_SIZE = 32


class BaseMLP(ABC):
    """A multi-layer perceptron: dense layers, each with a bias and an activation.

    Parameters
    ----------
    layer_sizes : the widths, inputs first, outputs last: [64, 128, 10] has one hidden layer.
    hidden, output : activation of the hidden layers and of the last one: "relu", "leaky_relu", "elu", "selu",
        "gelu", "gelu_tanh", "silu", "mish", "softplus", "sigmoid", "tanh" or "identity" (see
        `fastbp.activations`); output also "softmax".
    loss : "mse", per sample 1/2 * sum over outputs of (y_pred - y_true)²; "mae", of |y_pred - y_true|;
        "huber" or, with a delta other than 1, "huber(0.5)"; "pinball(0.9)" for that
        quantile of the targets; "hinge" (targets -1 and 1);
        "binary_crossentropy" (with output "sigmoid"; targets in [0, 1]); or "categorical_crossentropy" (with
        output "softmax"; targets are class labels 0, 1, ... or rows of probabilities), with label smoothing
        "categorical_crossentropy(0.1)". All are sums over the outputs.
    reduction : "mean" divides loss and gradients by the batch size, "sum" adds the samples up.
    init : "normal" (standard deviation 0.01), "he", "glorot" (or "xavier"), "lecun", or "auto": He for ReLU
        and its relatives, LeCun for selu, Glorot for others. Biases start at 0.
    dtype : "float32" or "float64", of parameters and computation. Data of other dtypes are converted.
    seed : an integer makes initial weights, shuffling, dropout and noise reproducible.
    threads : at most so many threads; None: as many as Numba has (NUMBA_NUM_THREADS).
    max_norm : after each update, the weights into a unit (a column of a layer's W, output layer included)
        whose Euclidean norm is above max_norm are scaled down to it; biases are left alone. None: no limit.
        Srivastava and others, JMLR 15 (2014) 1929, section 5.1; as torch.renorm.
    input_scale, input_offset : the network sees X * input_scale + input_offset, here and wherever X is given:
        a number, or one for each input. input_scale=1/255 lets images stay bytes: `fit` and `predict` convert
        batches as they read them, and make no copy of X as floats.
    dropout : in training (`fit`, `train_step`) each hidden unit is 0 with this probability, for each row
        anew, and divided by 1 - dropout otherwise; a number for all hidden layers, or one for each. It is
        rounded to a multiple of 2^-16. Srivastava et al., JMLR 15 (2014); inverted, as in torch.nn.Dropout.
    input_noise : in training, normally distributed noise of this standard deviation is added to X (as the
        network sees it), for each row and step anew. Bishop, Neural Computation 7 (1995) 108.
    layer_norm : True normalises every hidden layer: with s = inputs @ W, n = (s - mean) / sqrt(var + 1e-5)
        over the units of the row, z = gain * n + bias, and a = act(z). Rows do not depend on one another, so
        it is the same in training and afterwards. Ba, Kiros and Hinton, arXiv 1607.06450 (2016); as
        torch.nn.LayerNorm behind a linear layer without bias. (A layer of one unit always has n = 0.)

    Attributes
    ----------
    weights, biases, gains : lists of (fan_in, fan_out), (fan_out,) and (fan_out,) arrays; gains, which start
        at 1, are those of the hidden layers with layer_norm, else an empty list. Write into them, or put
        arrays of the same shape in their place (the values are copied).
    metadata : a dict of what can be written as JSON, saved and restored with the model.
    """

    _chunks_are_atomic = False
    _slack = 0  # bytes behind the parameters that are read
    # For the first chunk of a training run, before anything was measured; a subclass knows better.
    _step_overhead_seconds = 1e-4
    _seconds_per_multiply_add = 1e-9

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        hidden: str = "relu",
        output: str = "sigmoid",
        loss: str = "mse",
        reduction: str = "mean",
        init: str = "auto",
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        threads: int | None = None,
        max_norm: float | None = None,
        input_scale: ArrayLike = 1.0,
        input_offset: ArrayLike = 0.0,
        dropout: float | Sequence[float] = 0.0,
        input_noise: float = 0.0,
        layer_norm: bool = False,
    ) -> None:
        self.architecture = Architecture(
            layer_sizes,
            hidden=hidden,
            output=output,
            loss=loss,
            reduction=reduction,
            init=init,
            dtype=dtype,
            seed=seed,
            threads=threads,
            max_norm=max_norm,
            input_scale=input_scale,
            input_offset=input_offset,
            dropout=dropout,
            input_noise=input_noise,
            layer_norm=layer_norm,
        )
        self.metadata: dict[str, Any] = {}
        self.streams = Streams(self.architecture.seed)
        self.parameters = Parameters(self.architecture, self._slack)
        self._resets = 0
        self._draw()
        self._measured_step: tuple[Any, float] | None = None  # ((batch size, part), seconds)
        self._make_reader()
        self._set_up()

    def _make_reader(self) -> None:
        a = self.architecture
        self.reader = Reader(a.inputs, a.outputs, a.dtype, a.loss, a.scaling, self._is_finite)

    def _draw(self) -> None:
        """Initial parameters, and the random streams at their beginnings."""
        self.parameters.draw(self.architecture, self.streams.restart())
        self._symmetry_reported = False

    # ---- what a subclass supplies ---------------------------------------------------------------------

    @abstractmethod
    def _forward_pass(self, X: Array) -> Trace:
        """Every layer's results for X (batch, inputs), as new arrays."""

    @abstractmethod
    def _backward_pass(self, trace: Trace, Y: Array) -> Array:
        """The gradient as a flat array in the order of `_parameters`, scaled as `reduction` says."""

    @abstractmethod
    def _train_chunk(
        self,
        X: Array | Rows,
        Y: Array | Rows,
        order: NDArray[np.int64] | None,
        first_step: int,
        last_step: int,
        batch_size: int,
        optimizer: Optimizer,
        state: State,
        losses_out: NDArray[np.float64],
        *,
        only_if_finite: bool = False,
        part: int | None = None,
    ) -> bool:
        """Run the training steps first_step <= s < last_step; whether parameters and state were updated.

        only_if_finite: where `_chunks_are_atomic`, they are updated at the end, and only if parameters and
        losses are finite; elsewhere it means nothing.

        X (samples, inputs) and Y (samples, outputs; a column more with weights) are C-ordered, of the model's
        dtype, and may be read-only, or they are `Rows` to be converted to that. An epoch has
        ceil(samples / batch_size) steps, the last of which may have fewer rows. Step s is step s mod (steps
        per epoch) of epoch s div (steps per epoch), and takes the rows of X in order (`order` is None) or
        those that `order` lists: one permutation of the samples after another, one for each epoch from epoch
        0 on. losses_out[s - first_step] becomes the loss of step s before its update, summed over the batch
        whatever the reduction. With no steps to run, it compiles what is needed.
        A step takes its rows `part` at a time, which is all that there are activations of (None: all).
        """

    def _set_up(self) -> None:  # noqa: B027 - there may be nothing to do
        """Make the attributes that are a subclass's own, for a new model or one restored from a pickle."""

    def _request_stop(self) -> None:  # noqa: B027
        """Ctrl-C came while a chunk runs: a long one may raise KeyboardInterrupt instead of finishing."""

    @staticmethod
    def _is_finite(array: Array) -> bool:
        """False if the array may hold NaN or infinity, and has to be looked at in detail."""
        return False

    def _predict(self, X: Array) -> Array:
        """The last activation for X (rows, inputs), C-ordered, as a new array."""
        out = np.empty((len(X), self.architecture.layer_sizes[-1]), self.architecture.dtype)
        for rows in self._row_blocks(len(X)):
            out[rows] = self._forward_pass(X[rows]).y_pred
        return out

    # ---- parameters -----------------------------------------------------------------------------------

    @property
    def weights(self) -> list[Array]:
        """(fan_in, fan_out) of each layer."""
        return self.parameters.weights

    @weights.setter
    def weights(self, arrays: list[Array]) -> None:
        self.parameters.weights = arrays

    @property
    def biases(self) -> list[Array]:
        """(fan_out,) of each layer."""
        return self.parameters.biases

    @biases.setter
    def biases(self, arrays: list[Array]) -> None:
        self.parameters.biases = arrays

    @property
    def gains(self) -> list[Array]:
        """(fan_out,) of each hidden layer with layer_norm, else none."""
        return self.parameters.gains

    @gains.setter
    def gains(self, arrays: list[Array]) -> None:
        self.parameters.gains = arrays

    def __getstate__(self) -> dict[str, Any]:
        kept = ("architecture", "parameters", "streams", "metadata", "_resets", "_symmetry_reported")
        return {name: getattr(self, name) for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._measured_step = None
        self._make_reader()
        self._set_up()

    def __copy__(self) -> Self:
        """As a deep copy: two models that share an array or a generator would disturb each other."""
        return copy.deepcopy(self)

    # ---- what was asked for ---------------------------------------------------------------------------

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The widths, inputs first."""
        return self.architecture.layer_sizes

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.architecture.dtype

    @property
    def dropout(self) -> tuple[float, ...]:
        """The dropout of each hidden layer."""
        return self.architecture.dropout

    @property
    def input_noise(self) -> float:
        """The standard deviation of what training adds to the inputs."""
        return self.architecture.input_noise

    @property
    def layer_norm(self) -> bool:
        """Whether the hidden layers are normalised."""
        return self.architecture.layer_norm

    @property
    def n_parameters(self) -> int:
        """The number of weights, biases and gains."""
        return len(self.parameters)

    def __repr__(self) -> str:
        return repr(self.architecture)

    def summary(self) -> str:
        """A table of the layers with shapes and parameter counts."""
        return self.architecture.summary()

    # Other names of the same, as long as there are readers of them.
    _parameters: Any = property(lambda self: self.parameters.flat)
    _layer_sizes: Any = property(lambda self: self.architecture.layer_sizes)
    _activations: Any = property(lambda self: self.architecture.activations)
    _loss: Any = property(lambda self: self.architecture.loss)
    _dtype: Any = property(lambda self: self.architecture.dtype)
    _dropout: Any = property(lambda self: self.architecture.dropout)
    _input_noise: Any = property(lambda self: self.architecture.input_noise)
    _max_norm: Any = property(lambda self: self.architecture.max_norm)
    _layer_norm: Any = property(lambda self: self.architecture.layer_norm)
    _reduction: Any = property(lambda self: self.architecture.reduction)
    _threads: Any = property(lambda self: self.architecture.threads)
    _scaling: Any = property(lambda self: self.architecture.scaling)
    _noise_key: Any = property(lambda self: self.streams.noise_key)
    _shuffling: Any = property(lambda self: self.streams.shuffling)
    _views: Any = property(lambda self: self.parameters.views)
    _split: Any = property(lambda self: self.parameters.split)
    _architecture: Any = property(lambda self: self.architecture.to_json)
    _random_state: Any = property(lambda self: self.streams.state)
    _adopt_parameters: Any = property(lambda self: self.parameters.adopt)

    # ---- one batch ------------------------------------------------------------------------------------

    def _sample_losses(self, trace: Trace, Y: Array) -> NDArray[np.float64]:
        """(batch,): the loss of each sample, times its weight."""
        y, weights = split_weights(Y, self.architecture.layer_sizes[-1])
        losses = self.architecture.loss.value(trace.z[-1], trace.a[-1], y)
        return losses if weights is None else losses * weights

    def _output_delta(self, trace: Trace, Y: Array) -> Array:
        """(batch, outputs): the derivative of these losses with respect to the last z."""
        y, weights = split_weights(Y, self.architecture.layer_sizes[-1])
        delta = self.architecture.loss.delta(trace.z[-1], trace.a[-1], y, self.architecture.activations[-1])
        return delta if weights is None else delta * weights[:, None]

    def forward(self, X: ArrayLike, *, check_finite: bool = True) -> Trace:
        """Every layer's pre-activation and activation for X (batch, inputs). Parameters are not changed.

        Raises ValueError (shape, empty batch, NaN or infinity) or TypeError (dtype).
        """
        self.parameters.adopt()
        return self._forward_pass(self.reader.inputs(X, check_finite))

    def backward(
        self,
        trace: Trace,
        Y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        check_finite: bool = True,
    ) -> Gradients:
        """The loss's gradients, from what `forward` returned and Y (batch, outputs). Changes no parameter.

        Y and sample_weight as in `fit`. Raises ValueError (shape, NaN or infinity) or TypeError (dtype).
        """
        self.parameters.adopt()
        if not isinstance(trace, Trace):
            raise TypeError(f"trace must be what forward returned, got {type(trace).__name__}")
        rows = len(trace.X)
        expected = [(rows, n) for n in self.architecture.layer_sizes[1:]]
        if [z.shape for z in trace.z] != expected or [a.shape for a in trace.a] != expected:
            raise ValueError(f"trace is not of this model: expected z and a of shapes {expected}")
        hidden = expected[:-1] if self.architecture.layer_norm else []
        stds = [(rows,)] * len(hidden)
        if [n.shape for n in trace.n] != hidden or [v.shape for v in trace.inverse_std] != stds:
            raise ValueError(
                f"trace is not of this model: expected n of shapes {hidden} and inverse_std of ({rows},) each"
            )
        y = self.reader.targets(Y, rows, check_finite, sample_weight=sample_weight)
        return Gradients(*self.parameters.split(self._backward_pass(trace, y)))

    def _row_blocks(self, rows: int) -> list[slice]:
        block = max(1, EVALUATE_MULTIPLY_ADDS // sum(m * n for m, n in self.architecture.shapes))
        return [slice(start, min(start + block, rows)) for start in range(0, rows, block)]

    def predict(self, X: ArrayLike, *, check_finite: bool = True) -> Array:
        """The output (batch, outputs) for X (batch, inputs), as a new array. Errors as `forward`."""
        self.parameters.adopt()
        x = self.reader.input_rows(X, check_finite)
        if not isinstance(x, Rows):
            return self._predict(x)
        out = np.empty((len(x), self.architecture.layer_sizes[-1]), self.architecture.dtype)
        for rows in sources.row_blocks(x):
            out[rows] = self._predict(x[rows])
        return out

    def loss(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        check_finite: bool = True,
    ) -> float:
        """The loss of the data, over the batch as `reduction` says; Y and sample_weight as in `fit`.

        Errors as `forward` and `backward`.
        """
        self.parameters.adopt()
        samples = self.reader.samples(X, Y, sample_weight, check_finite)
        return self._evaluate(samples.X, samples.Y)

    def _evaluate(self, X: Array | Rows, Y: Array | Rows, y_pred: Array | None = None) -> float:
        """The loss; the output goes into y_pred (batch, outputs), if there is one."""
        total = 0.0
        for rows in self._row_blocks(len(X)):
            trace = self._forward_pass(X[rows])
            total += float(self._sample_losses(trace, Y[rows]).sum())
            if y_pred is not None:
                y_pred[rows] = trace.y_pred
        return self.architecture.mean(total, len(X))

    def train_step(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        optimizer: Optimizer,
        *,
        sample_weight: ArrayLike | None = None,
        check_finite: bool = True,
    ) -> float:
        """One step on the batch X (batch, inputs), Y (batch, outputs); the loss before.

        Y, sample_weight and errors as in `fit`.
        """
        state = self._begin(optimizer)
        batch = self.reader.batch(X, Y, sample_weight, check_finite).apart_from(self.parameters.flat)
        rows, out = len(batch), np.empty(1)
        self._train_chunk(batch.X, batch.Y, None, 0, 1, rows, optimizer, state, out)
        return self.architecture.mean(float(out[0]), rows)

    def _begin(self, optimizer: Optimizer) -> State:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer must be an object like SGD(0.1) or Adam(), got {optimizer!r}")
        optimizer.check()
        self.parameters.adopt()
        self.parameters.require_updatable()
        self.parameters.changed()
        return optimizer.state(self, len(self.parameters), self.architecture.dtype)

    # ---- training -------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike | BatchSource,
        Y: ArrayLike | None = None,
        *,
        epochs: int | None = None,
        steps: int | None = None,
        steps_per_epoch: int | None = None,
        batch_size: int = BATCH_SIZE,
        accumulate: int = 1,
        optimizer: Optimizer,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        class_weight: ClassWeight | None = None,
        validation_data: tuple[ArrayLike, ...] | None = None,
        validation_split: float = 0.0,
        metrics: str | Function | Sequence[str | Function] = (),
        callbacks: Callback | Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        every: int | None = None,
        every_steps: int | None = None,
        on_checkpoint_error: str = "raise",
        progress: bool = True,
        check_finite: bool = True,
    ) -> History:
        """Train on mini-batches, from the parameters that the model has (`reset` makes it a new one).

        Parameters
        ----------
        X, Y : (samples, inputs), (samples, outputs). Arrays, among them np.memmap, or paths of .npy files.
            Files may be larger than memory: batches are read from them as they are needed (shuffling takes 8
            bytes a sample). Integers are converted batch by batch; see also input_scale. With loss
            "categorical_crossentropy" Y may also be class labels 0, 1, ..., (samples,) or (samples, 1);
            otherwise each of its rows has the sum 1.
        X, without Y : an iterable of batches (X, Y) or (X, Y, sample_weight) of such arrays (or of what can
            be made one, like PyTorch's tensors on the CPU), of any numbers of rows. Each is a step, and is
            used before the next one is asked for, so that memory stays at a batch's size. A list, a
            DataLoader or whatever else begins again with each iter() is gone through once an epoch. A
            function without arguments is called once an epoch, for an iterable. An iterator, such as a
            generator, can be gone through once: if it ends before `epochs` or `steps` are done, training ends
            with a warning. An iterable has its own order, which `shuffle` does not change, and which nothing
            here could restore: `checkpoint` is refused.
        epochs : how often all samples are gone through; or
        steps : how many batches are trained on, in epochs of which the last one may stay incomplete.
        steps_per_epoch : with an iterable, an epoch is so many steps (as in Keras), wherever the iterable
            ends and begins again. None: an epoch is a pass over it. One without an end needs this, or
            `steps`, which then are one epoch, with validation and callbacks at its end.
        batch_size : rows per step; the last batch of an epoch may have fewer. An iterable has its own.
        accumulate : add the gradients of so many batches up for one step: to rounding the same as a step of
            accumulate * batch_size rows (other random numbers in dropout apart), but in memory for the
            activations of batch_size rows. The steps of `steps`, callbacks and learning rates are these.
            Batches of an iterable are put together for it.
        optimizer : SGD, Adam, AdamW, NAdam, RMSprop or Adagrad; it goes on with its state for this model.
        shuffle : a new order each epoch, drawn from the model's seed.
        sample_weight : (samples,), each at least 0: a sample's loss and error are multiplied by its weight.
            Reduction "mean" still divides by the number of rows (as in Keras and scikit-learn).
        class_weight : a weight for each class, as if its samples had it; both kinds multiply. A dict (classes
            that it leaves out have 1), an array, or "balanced": samples / (classes * samples of the class).
            For loss "categorical_crossentropy" with classes 0, 1, ...; with one output also for
            "binary_crossentropy", classes 0 and 1, and "hinge", -1 and 1. Validation takes no notice of it.
            (PyTorch's class weights divide by the sum of the weights instead of the number of rows.)
        validation_data : (X, Y) or (X, Y, sample_weight), whose loss is computed after each epoch.
        validation_split : instead, this share of the samples, which are not trained on. They are drawn from
            the model's seed, the same ones in every call with so many samples. (Both parts are copies in
            memory. For files that are larger, give validation_data.)
        metrics : computed on the validation data after each epoch: "accuracy", "top_k(3)", "r2", "mae" or
            "auc" (see `fastbp.metrics`), or functions of (y_true, y_pred), both (rows, outputs).
        callbacks : called after each epoch as callback(model, epoch, history), epoch counted from 1. A true
            return value ends the training. Objects like EarlyStopping() may have methods for more than that,
            see `fastbp.callbacks`.
        checkpoint : a file that is written after every so many epochs (`every`, 1 unless `every_steps` is
            given) or steps (`every_steps`), at the end and at Ctrl-C: model, optimizer, random state, history
            and callbacks' state. If it exists, training goes on from there, to the same bits as if it had
            never ended; a finished one returns at once. More epochs (steps) may be asked for than then; any
            other difference is a ValueError that names it. (Of large data, some values are compared.)
        on_checkpoint_error : "raise" OSError if the file cannot be written, or "warn" and go on. The file
            written before remains.
        progress : a progress bar, if stderr is a terminal.
        check_finite : look for NaN and infinity in the data first.

        Returns
        -------
        History. Ctrl-C ends training after the current chunk of steps (well under a second), with the epochs
        finished so far in the history, whose `interrupted` is then True; the model stays usable.

        Raises
        ------
        ValueError, TypeError : for arguments that do not fit, before anything is changed; for a batch that
            does not fit, with its number, and like anything that an iterable raises, before its step.
        FloatingPointError : when the loss or the parameters become NaN or infinite. The message names epoch
            and step, both counted from 1, and what `diagnose` finds; the model keeps the last finite ones.
        """
        if (epochs is None) == (steps is None):
            raise ValueError(f"give epochs or steps, one of them; got epochs={epochs}, steps={steps}")
        if epochs is not None:
            epochs = checks.count("epochs", epochs, low=0)
        if steps is not None:
            steps = checks.count("steps", steps, low=0)
        batch_size = checks.count("batch_size", batch_size)
        accumulate = checks.count("accumulate", accumulate)
        shuffle = checks.flag("shuffle", shuffle)
        if steps_per_epoch is not None:
            steps_per_epoch = checks.count("steps_per_epoch", steps_per_epoch)
        sorted_callbacks = Callbacks(callbacks)
        checkpoints = None
        if checkpoint is not None:
            checkpoints = Checkpoints(checkpoint, every, every_steps, on_checkpoint_error)
        elif every is not None or every_steps is not None:
            raise ValueError(
                "every and every_steps say when to write the checkpoint: give checkpoint= as well"
            )
        state, loss = self._begin(optimizer), self.architecture.loss
        held_out = self.reader.validation(validation_data, check_finite)
        validation_split = checks.number("validation_split", validation_split, low=0, below=1)
        if validation_split and held_out is not None:
            raise ValueError("give validation_data or validation_split, not both")
        if Y is None:
            refuse_for_batches(
                {
                    "batch_size": batch_size != BATCH_SIZE,
                    "sample_weight": sample_weight is not None,
                    "class_weight='balanced'": isinstance(class_weight, str) and class_weight == "balanced",
                    "validation_split": validation_split > 0,
                    "checkpoint": checkpoint is not None,
                }
            )
        else:
            if gives_batches(X):
                raise TypeError(f"X is a {type(X).__name__}, which gives batches (X, Y): leave Y out")
            if steps_per_epoch is not None:
                raise ValueError(
                    "steps_per_epoch is for an iterable of batches: an epoch of arrays is all samples"
                )
            samples = self._samples(X, Y, sample_weight, check_finite)
            if checkpoints is not None:
                settings = {
                    "model": self.architecture.to_json(),
                    "optimizer": optimizer,
                    "X": samples.X,
                    "Y": samples.targets,
                    "sample_weight": samples.stored_weights,
                    "class_weight": class_weight,
                    "batch_size": batch_size,
                    "accumulate": accumulate,
                    "shuffle": shuffle,
                    "validation_data": held_out and {"X": held_out.X, "Y": held_out.Y},
                    "validation_split": validation_split,
                    "metrics": metrics,
                    "callbacks": sorted_callbacks.with_state,
                }
                checkpoints.open(self, settings)
                self.streams.splitting = checkpoints.splitting(self.streams.splitting)
            if validation_split:
                rows, held_rows = self._split_rows(len(samples), validation_split)
                samples, held_out = samples.picked(rows), samples.picked(held_rows)
            samples = samples.class_weighted(class_weight, loss)
            warn_if_out_of_reach(samples.targets, self.architecture.activations[-1], loss)
        held_targets = held_out.targets[:] if held_out and metrics else None
        entries = chosen(metrics, held_targets, self.architecture.outputs, loss.name)
        self._require_finite_parameters()
        self._warn_if_symmetric()
        run: Run
        if Y is None:

            def prepare(X: Any, Y: Any, weights: Any) -> tuple[Array | Rows, Array | Rows]:
                batch = self._samples(X, Y, weights, check_finite).class_weighted(
                    class_weight, self.architecture.loss
                )
                return batch.X, batch.Y

            batches = Batches(X, accumulate, prepare)
            run = BatchRun(self, batches, epochs, steps, steps_per_epoch, optimizer, state)
        else:
            rows_of_step = min(accumulate * batch_size, len(samples))
            part = batch_size if batch_size < rows_of_step else None
            if steps is None:
                assert epochs is not None
                steps = epochs * -(-len(samples) // rows_of_step)
            run = Run(self, samples.X, samples.Y, steps, rows_of_step, optimizer, state, shuffle, part)
        if checkpoints is not None:
            checkpoints.compare(run)
            run.checkpoints = checkpoints
        validation = Validation(held_out, entries) if held_out else None
        history = run.train(validation, sorted_callbacks, progress)
        if run.shortage:
            warnings.warn(run.shortage, UserWarning, stacklevel=2)
        return history

    def partial_fit(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        optimizer: Optimizer,
        batch_size: int = BATCH_SIZE,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        check_finite: bool = True,
    ) -> float:
        """Train on these samples once, in mini-batches, and return the loss as `History.loss` defines it.

        For data that come in pieces: parameters, the optimizer's state and the schedule go on from call to
        call. It is `fit` with epochs=1, but raises KeyboardInterrupt at Ctrl-C, so that a loop around it
        ends, too; the model then has the steps done so far. Arguments and errors as there.
        """
        batch_size = checks.count("batch_size", batch_size)
        shuffle = checks.flag("shuffle", shuffle)
        state = self._begin(optimizer)
        samples = self._samples(X, Y, sample_weight, check_finite)
        self._require_finite_parameters()
        self._warn_if_symmetric()
        rows = len(samples)
        batch_size = min(batch_size, rows)
        steps = -(-rows // batch_size)
        run = Run(self, samples.X, samples.Y, steps, batch_size, optimizer, state, shuffle)
        history = run.train(None, Callbacks(()), progress=False)
        if history.interrupted:
            raise KeyboardInterrupt
        return history.last("loss")

    def reset(self) -> None:
        """Forget all training: new initial weights, biases 0, gains 1, batches from the beginning.

        With a seed, parameters and batches are those of a new model again; without one, others than before.
        Optimizers begin anew with this model, too. `fit` goes on from where the model is (scikit-learn's
        warm_start=True); after reset(), from the start (warm_start=False).
        """
        self._draw()
        self._resets += 1

    def _samples(self, X: Any, Y: Any, sample_weight: ArrayLike | None, check_finite: bool) -> Samples:
        """Data to train on."""
        return self.reader.samples(X, Y, sample_weight, check_finite).apart_from(self.parameters.flat)

    def _split_rows(self, rows: int, fraction: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows to train on and rows held out, both in the order of the data; the same ones in every call."""
        held = round(fraction * rows)
        if not 0 < held < rows:
            side = "training" if held else "validation"
            raise ValueError(f"validation_split={fraction:g} of {rows} rows leaves nothing for {side}")
        order = np.random.default_rng(self.streams.splitting).permutation(rows)
        return np.sort(order[held:]), np.sort(order[:held])

    def _require_finite_parameters(self) -> None:
        if not self.parameters.are_finite():
            raise ValueError("weights, biases or gains hold NaN or infinity: training cannot start from them")

    def _warn_if_symmetric(self) -> None:
        """Warn once about hidden layers whose units are all alike, and get alike updates for ever."""
        if self._symmetry_reported:
            return
        layers = [i for i in range(1, len(self.weights)) if self._is_symmetric(i)]
        if not layers:
            return
        self._symmetry_reported = True
        zero = all(not self.weights[i - 1].any() for i in layers)
        which = f"layer {layers[0]}" if len(layers) == 1 else "layers " + ", ".join(map(str, layers))
        warnings.warn(
            f"the hidden units of {which} will stay identical: their weights are all "
            f"{'zero' if zero else 'the same'}, so all of them compute the same and get the same gradient "
            "(symmetry); start from random weights",
            UserWarning,
            stacklevel=3,
        )

    def _is_symmetric(self, layer: int) -> bool:
        """Whether the units of hidden layer `layer` (from 1) are alike, and will be."""
        W, b, W_next = self.weights[layer - 1], self.biases[layer - 1], self.weights[layer]
        if W.shape[1] < 2 or W[0, 0] != W[0, 1] or not np.array_equal(W[:, 0], W[:, 1]):  # the usual case
            return False
        if not ((W[:, :1] == W).all() and (b == b[0]).all()):
            return False
        if self.gains and not (self.gains[layer - 1] == self.gains[layer - 1][0]).all():
            return False
        # Alike so far. They stay alike if they are weighted alike, or if no gradient comes through at all.
        silent = self.architecture.activations[layer - 1].name == "relu" and not W.any() and b[0] <= 0
        return bool(silent or (W_next == W_next[:1]).all())

    # ---- looking into it ------------------------------------------------------------------------------

    def check_gradients(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        max_entries: int | None = 200,
    ) -> GradientCheck:
        """Compare `backward` with central differences of the loss, in float64. The model is not changed.

        `max_entries` parameters of each array are looked at, spread evenly (None: all of them; each costs two
        forward passes). Returns the largest relative error of each array; see `GradientCheck`.
        """
        from fastbp.inspection.gradient_check import check_gradients

        return check_gradients(self, X, Y, sample_weight, max_entries)

    def diagnose(self, X: ArrayLike, Y: ArrayLike) -> Diagnosis:
        """How signals and gradients do in each layer, for this data; print it, or see `Diagnosis`."""
        from fastbp.inspection.diagnosis import diagnose

        return diagnose(self, X, Y)

    # ---- files ----------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a safetensors file, all of it or (on an error) nothing.

        Optimizer state is not part of it. OSError if it cannot be written, TypeError if `metadata` is not
        JSON.
        """
        from fastbp.storage.model_file import save

        save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The model in a file that `save` wrote, or in a checkpoint of `fit`. Runs no code of the file.

        OSError if it cannot be read, ValueError if it is not a model of fastbp's, truncated or altered.
        """
        from fastbp.storage.model_file import load

        architecture, metadata, parameters = load(path)
        model = cls(**architecture.to_json())
        model.parameters.replace(parameters)
        model.metadata = metadata
        return model
