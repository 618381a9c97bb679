"""MLP: a network as users meet it. What each method is given goes to one of the model's parts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from numpy.typing import ArrayLike, DTypeLike

from fastbp.callbacks import Callback
from fastbp.embed.methods import Embeddable
from fastbp.embed.training_state import TrainingState
from fastbp.history import History
from fastbp.inputs.samples import ClassWeight
from fastbp.inspection.inspected import Inspected
from fastbp.metrics import Function
from fastbp.mpi.communicator import joined
from fastbp.network.architecture import Architecture
from fastbp.network.backend import Backend
from fastbp.network.compiled import CompiledBackend
from fastbp.network.evaluation import evaluate
from fastbp.network.results import Gradients, Trace, checked_trace
from fastbp.optimizer_base import Optimizer
from fastbp.storage import model_file
from fastbp.training import start
from fastbp.training.batches import BatchSource
from fastbp.training.options import BATCH_SIZE, FitOptions, RowOrder


class MLP(Embeddable, Inspected):
    """A multi-layer perceptron: dense layers, each with a bias and an activation.

    Parameters
    ----------
    layer_sizes : the widths, inputs first, outputs last: [64, 128, 10] has one hidden layer.
    hidden, output : activation of the hidden layers and of the last one: "relu", "leaky_relu", "elu", "selu",
        "gelu", "gelu_tanh", "silu", "mish", "softplus", "sigmoid", "tanh" or "identity" (see
        `fastbp.activations`); hidden also a list, one for each hidden layer; output also "softmax", "exp".
    loss : "mse", per sample 1/2 * sum over outputs of (y_pred - y_true)²; "mae", of |y_pred - y_true|;
        "huber" or, with a delta other than 1, "huber(0.5)"; "pinball(0.9)" for that
        quantile of the targets; "hinge" (targets -1 and 1); "poisson" (with output "exp"; targets >= 0);
        "gaussian_nll" (with output "identity"; outputs are in turn a target's mean and its spread, see
        `fastbp.losses.gaussian`, so there are half as many targets);
        "binary_crossentropy" (with output "sigmoid"; targets in [0, 1]); or "categorical_crossentropy" (with
        output "softmax"; targets are class labels 0, 1, ... or rows of probabilities), with label smoothing
        "categorical_crossentropy(0.1)". All are sums over the outputs.
    reduction : "mean" divides loss and gradients by the batch size, "sum" adds the samples up,
        "weighted_mean" divides by the sum of the batch's sample weights (without weights by its size). A
        batch whose weights sum to 0 is then skipped: loss and gradients are 0, no step is taken.
    init : "normal" (standard deviation 0.01), "he", "glorot" (or "xavier"), "lecun", "torch" (as
        torch.nn.Linear), or "auto": with output "identity" as "torch", otherwise He for ReLU and its
        relatives, LeCun for selu, Glorot for others. Biases start at 0, but for "torch".
    dtype : "float32" or "float64", of parameters and computation. Data of other dtypes are converted.
    precision : "bfloat16" rounds the factors of matrix products to that; sums and all other numbers stay
        float32 (see fastbp/engine/README.md, "Products in bfloat16"). None: nothing is rounded.
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
    l2 : l2 / 2 * (the sum of all squared weights, without biases and gains) is added to each batch's sum of
        losses, before `reduction` divides it: part of the loss and of its gradients, wherever they are
        computed (in `loss` and validation once for all the data), and so of what clip_norm clips. As
        scikit-learn's alpha. An optimizer's weight_decay is no part of the loss.

    Attributes
    ----------
    weights, biases, gains : lists of (fan_in, fan_out), (fan_out,) and (fan_out,) arrays; gains, which start
        at 1, are those of the hidden layers with layer_norm, else an empty list. Write into them, or put
        arrays of the same shape in their place (the values are copied).
    metadata : a dict of what can be written as JSON, saved and restored with the model.
    feature_names : the names of the columns, where X was a table (a DataFrame) when the model was trained;
        else None. A table given later must have the same columns in the same order.
    architecture, parameters, streams, reader, backend : what the model is made of, for those who work on
        models: what the constructor was told, the numbers, the random generators, what checks and converts
        data, and what computes (see `fastbp.network`).
    """

    backend_type: ClassVar[type[Backend]] = CompiledBackend

    def __init__(
        self,
        layer_sizes: Sequence[int],
        *,
        hidden: str | Sequence[str] = "relu",
        output: str = "sigmoid",
        loss: str = "mse",
        reduction: str = "mean",
        init: str = "auto",
        dtype: DTypeLike = "float32",
        precision: str | None = None,
        seed: int | None = None,
        threads: int | None = None,
        max_norm: float | None = None,
        input_scale: ArrayLike = 1.0,
        input_offset: ArrayLike = 0.0,
        dropout: float | Sequence[float] = 0.0,
        input_noise: float = 0.0,
        layer_norm: bool = False,
        l2: float = 0.0,
    ) -> None:
        architecture = Architecture(
            layer_sizes,
            hidden=hidden,
            output=output,
            loss=loss,
            reduction=reduction,
            init=init,
            dtype=dtype,
            precision=precision,
            seed=seed,
            threads=threads,
            max_norm=max_norm,
            input_scale=input_scale,
            input_offset=input_offset,
            dropout=dropout,
            input_noise=input_noise,
            layer_norm=layer_norm,
            l2=l2,
        )
        self._set_up(architecture)

    # ---- one batch ------------------------------------------------------------------------------------

    def forward(self, X: ArrayLike, *, check_finite: bool = True) -> Trace:
        """Every layer's pre-activation and activation for X (batch, inputs). Parameters are not changed.

        Raises ValueError (shape, empty batch, NaN or infinity) or TypeError (dtype).
        """
        self.parameters.adopt()
        return self.backend.forward(self.reader.inputs(X, check_finite))

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
        trace = checked_trace(trace, self.architecture)
        y = self.reader.targets(Y, len(trace.X), check_finite, sample_weight=sample_weight)
        return Gradients(*self.parameters.split(self.backend.backward(trace, y)))

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
        return evaluate(self.backend, self.reader.samples(X, Y, sample_weight, check_finite))

    def train_step(
        self,
        X: ArrayLike,
        Y: ArrayLike,
        optimizer: Optimizer | TrainingState,
        *,
        sample_weight: ArrayLike | None = None,
        check_finite: bool = True,
    ) -> float:
        """One step on the batch X (batch, inputs), Y (batch, outputs); the loss before.

        Y, sample_weight and errors as in `fit`. In compiled code the third argument is what
        `training_state(optimizer)` returns, X and Y are arrays of the model's dtype, and samples have no
        weights.
        """
        if isinstance(optimizer, TrainingState):
            optimizer = optimizer.optimizer_for(self, X)
        return start.train_step(self, X, Y, optimizer, sample_weight, check_finite)

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
        shards: int = 1,
        comm: Any = None,
        local: bool = False,
        optimizer: Optimizer,
        shuffle: bool = True,
        order: RowOrder | None = None,
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
        X, Y : (samples, inputs), (samples, outputs), with one output also (samples,). Arrays, among them
            np.memmap, tables of numbers (the columns' names are remembered), or paths of .npy files; X also
            a sparse matrix of SciPy (CSR; others are converted), whose rows are made dense batch by batch.
            Files may be larger than memory: batches are read from them as they are needed (shuffling takes 8
            bytes a sample). A file that somebody cuts short is an error, unless it happens while some of
            its rows are being read, which ends the process. Shapes are those at the start, values may be
            changed in between. Integers are converted batch by batch; see also input_scale. With loss
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
        shards : cut each step's batch into so many parts, whose gradients are added along one fixed tree: the
            bits of a training by several processes (see `fastbp.mpi`), in memory for a part's activations.
        comm : an mpi4py communicator, whose ranks (1, 2, 4, ...; a divisor of `shards`) train one network:
            all make the same call with the same model. Rank 0 alone has callbacks, validation, progress and
            the checkpoint. See fastbp/mpi/README.md.
        local : each rank's X and Y are a part of its own, of whose rows it takes its share of each batch.
        optimizer : SGD, Adam, AdamW, NAdam, RMSprop or Adagrad; it goes on with its state for this model.
        shuffle : a new order each epoch, drawn from the model's seed.
        order : instead, a function that is called with the epoch, 1, 2, ..., when it begins, and returns
            (samples,) row numbers: integers, of which some may be missing and others there again and again.
            To go on from a checkpoint within an epoch it is called with that epoch again.
        sample_weight : (samples,), each at least 0, and not all of them: a sample's loss and error are
            multiplied by its weight. Reduction "mean" still divides by the number of rows (as Keras
            does), "weighted_mean" by the sum of the batch's weights (as scikit-learn does).
        class_weight : a weight for each class, as if its samples had it; both kinds multiply. A dict (classes
            that it leaves out have 1), an array, or "balanced": samples / (classes * samples of the class).
            For loss "categorical_crossentropy" with classes 0, 1, ...; with one output also for
            "binary_crossentropy", classes 0 and 1, and "hinge", -1 and 1. Validation takes no notice of it.
            (PyTorch's class weights divide by the sum of the weights: reduction "weighted_mean".)
        validation_data : (X, Y) or (X, Y, sample_weight), whose loss is computed after each epoch.
        validation_split : instead, this share of the samples, which are not trained on. They are drawn from
            the model's seed, the same ones in every call with so many samples. (Both parts are copies in
            memory. For files that are larger, give validation_data.)
        metrics : computed on the validation data after each epoch: "accuracy", "top_k(3)", "r2", "mae" or
            "auc" (see `fastbp.metrics`), or functions of (y_true, y_pred), both (rows, outputs).
        callbacks : called after each epoch as callback(model, epoch, history), epoch counted from 1. A true
            return value ends the training. Objects like EarlyStopping() may have methods for more than that,
            see `fastbp.callbacks`, also for what they may change.
        checkpoint : a file that is written after every so many epochs (`every`, 1 unless `every_steps` is
            given) or steps (`every_steps`), at the end and at Ctrl-C: model, optimizer, random state, history
            and callbacks' state. If it exists, training goes on from there, to the same bits as if it had
            never ended; a finished one returns at once. More epochs (steps) may be asked for than then; any
            other difference is a ValueError that names it. (Of large data, some values are compared.)
        on_checkpoint_error : "raise" OSError if the file cannot be written, or "warn" and go on. The file
            written before remains.
        progress : a progress bar, if stderr is a terminal; elsewhere a line every ten seconds.
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
            and step, both counted from 1, and what `diagnose` finds; the model keeps the last finite ones,
            or has those of the best epoch with EarlyStopping.
        Whatever is raised once training has begun, also by a callback, has the epochs so far as its
        attribute `history`.
        """
        with joined(comm) as ranks:
            options = FitOptions(
                epochs=epochs,
                steps=steps,
                steps_per_epoch=steps_per_epoch,
                batch_size=batch_size,
                accumulate=accumulate,
                shards=shards,
                optimizer=optimizer,
                shuffle=shuffle,
                order=order,
                sample_weight=sample_weight,
                class_weight=class_weight,
                validation_data=validation_data,
                validation_split=validation_split,
                metrics=metrics,
                callbacks=callbacks,
                checkpoint=checkpoint,
                every=every,
                every_steps=every_steps,
                on_checkpoint_error=on_checkpoint_error,
                progress=progress,
                check_finite=check_finite,
                ranks=ranks,
                local=local,
            )
            return start.fit(self, X, Y, options)

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
        options = FitOptions(
            optimizer,
            epochs=1,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            progress=False,
            check_finite=check_finite,
        )
        history = start.fit(self, X, Y, options)
        if history.interrupted:
            raise KeyboardInterrupt
        return history.last("loss")

    # ---- files ----------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a safetensors file, all of it or (on an error) nothing.

        A symbolic link stays, the file that it points to is replaced; the mode of an old file is kept.
        Optimizer state is not part of it. OSError if it cannot be written, TypeError if `metadata` is not
        JSON, ValueError if a weight, bias or gain is NaN or infinite.
        """
        model_file.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The model in a file that `save` wrote, or in a checkpoint of `fit`. Runs no code of the file.

        OSError if it cannot be read, ValueError if it is not a model of fastbp's, truncated or altered.
        """
        architecture, metadata, feature_names, parameters = model_file.load(path)
        model = cls(**architecture.to_json())
        model.parameters.replace(parameters)
        model.metadata, model.reader.feature_names = metadata, feature_names
        return model
