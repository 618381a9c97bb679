"""Train many networks in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastbp import checks
from fastbp.callbacks import Callback
from fastbp.engine.threads import team
from fastbp.history import History
from fastbp.inputs.samples import ClassWeight
from fastbp.many.crew import Crew
from fastbp.many.members import Member
from fastbp.many.preparation import Data, prepared
from fastbp.many.remote import Dispatch
from fastbp.metrics import Function
from fastbp.network.network import Network
from fastbp.optimizer_base import Optimizer
from fastbp.training.options import BATCH_SIZE
from fastbp.training.progress import Progress


def fit_many(
    models: Sequence[Network],
    X: Any,
    Y: Any,
    *,
    epochs: int | Sequence[int],
    optimizers: Optimizer | Sequence[Optimizer],
    batch_size: int | Sequence[int] = BATCH_SIZE,
    rows: Sequence[Any] | None = None,
    sample_weight: Any = None,
    class_weight: ClassWeight | None = None,
    accumulate: int = 1,
    validation_data: Any = None,
    metrics: str | Function | Sequence[str | Function] = (),
    callbacks: Callback | Sequence[Any] | None = None,
    shuffle: bool = True,
    threads: int | None = None,
    executor: Any = None,
    progress: bool = True,
    check_finite: bool = True,
) -> list[History]:
    """Train many networks side by side, each core its own; each gets the bits of its own `fit`.

    Parameters, history and random state of every model are, byte for byte, those of `model.fit(...)` with the
    same arguments (and `X[rows]`, `Y[rows]`), at any number of threads and whatever the others do.

    Parameters
    ----------
    models : any mixture of architectures, losses, dtypes and seeds; none of them twice.
    X, Y : as in `fit`, one data set for all; or a list of arrays, tables or paths, one for each model.
    epochs, batch_size : one for all, or a list with one for each model.
    optimizers : one for all, which keeps a state for each model, or a list. Of what several share, the
        hyper-parameters are those of the moment of this call if its lr is a schedule.
    rows : for each model its rows: (n,) integers (folds; bootstrap: a row may be there often), (samples,)
        flags, or None for all of them.
    sample_weight : (samples,) for all, or a list of such.
    validation_data : as in `fit`, for all, or a list with one for each model.
    class_weight, accumulate, metrics, shuffle, check_finite : as in `fit`, for all.
    callbacks : for all, of those with a state (`EarlyStopping`) each model gets a copy; or a list of lists,
        one for each model. They are called in the threads that train, one at a time.
    threads : how many cores work; None: as many as there are. (What models have as `threads` is about a team
        of their own, which large networks get: those whose step is worth it and that would last longer than
        all others, or whose steps are so large that a team is as good.)
    executor : one of `concurrent.futures`, or what has its method submit: Dask's `client.get_executor()`,
        `mpi4py.futures.MPIPoolExecutor()`, joblib's loky. Networks are trained by its workers, each on
        `threads` cores (None: one), to the same bits. Callbacks are called there, on copies of them. A group
        of networks whose worker dies is sent again, twice; a pool of processes takes no more work when it
        has lost one, so give a function that makes one, such as `lambda: ProcessPoolExecutor(4)`.
    progress : as in `fit`.

    Returns
    -------
    A History for each model. One that diverges ends alone, with its last finite parameters; its `diverged`
    says where, and there is a warning. Ctrl-C ends all after their current chunk of steps; `interrupted` says
    so, models are usable, and those that had not begun are as they were.

    Raises
    ------
    ValueError, TypeError : before anything trains; a note says which model it is about.
    RuntimeError : names the networks that the workers of an executor could not train.
    What a callback raises : the others end as at Ctrl-C; the error's attribute `histories` has all of them.
    """
    progress = checks.flag("progress", progress)
    if threads is not None:
        threads = checks.count("threads", threads)
    data = Data(X, Y, rows, sample_weight, validation_data, checks.flag("check_finite", check_finite))
    common = {
        "class_weight": class_weight,
        "accumulate": accumulate,
        "metrics": metrics,
        "shuffle": shuffle,
        "check_finite": check_finite,
    }
    members = prepared(models, data, epochs, optimizers, batch_size, callbacks, common)
    train(members, threads, progress, executor)
    return [member.history for member in members]


def train(members: Sequence[Member], threads: int | None, progress: bool, executor: Any = None) -> None:
    """Train them all; what their histories are afterwards."""
    bar = Progress(progress, sum(member.steps for member in members), 0)
    done = [0, 0]

    def told(ended: Sequence[Member]) -> None:
        done[0] += len(ended)
        done[1] += sum(member.steps for member in ended)
        if bar.is_due(True):
            bar.show(done[1], f"{done[0]} of {len(members)} networks")

    try:
        if executor is None:
            crew = Crew(members, team.available(threads), told)
            crew.run()
            interrupted = crew.interrupted
        else:
            dispatch = Dispatch(members, executor, threads)
            interrupted = dispatch.run(told)
            dispatch.require_all()
    except BaseException as error:
        error.histories = [member.history for member in members]  # type: ignore[attr-defined]
        raise
    finally:
        bar.close()
    if interrupted:
        for member in members:
            member.history.interrupted |= not member.ended
    diverged = [member for member in members if member.history.diverged]
    if diverged:
        first = diverged[0]
        checks.warn(
            f"{len(diverged)} of {len(members)} networks have diverged and keep their last finite parameters "
            f"(see each history's `diverged`): models {', '.join(str(m.index) for m in diverged[:10])}"
            f"{', ...' if len(diverged) > 10 else ''}. models[{first.index}]: {first.history.diverged}",
            RuntimeWarning,
        )
