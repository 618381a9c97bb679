"""What a rank is sent to be where rank 0 is: after a checkpoint was read, and after callbacks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastbp.history import History
from fastbp.mpi.communicator import Communicator
from fastbp.optimizer_base import Optimizer
from fastbp.schedules import Schedule
from fastbp.training.course import Course


def sum_of_bits(values: NDArray[Any]) -> int:
    """A number that tells arrays of numbers apart, as quickly as they can be read."""
    return int(values.view(f"u{values.itemsize}").sum(dtype=np.uint64))


def hyper_parameters(optimizer: Optimizer) -> dict[str, Any]:
    """What may be set of an optimizer, as it is now."""
    return {name: value for name, value in vars(optimizer).items() if not name.startswith("_")}


def changed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What has been set since."""
    return {name: value for name, value in now.items() if value is not before[name] and value != before[name]}


def send_all(run: Course, ranks: Communicator) -> None:
    """Where rank 0 is, with all arrays, to all ranks."""
    lr = run.optimizer.lr
    of_rank_0 = ranks.share(
        {
            "optimizer": {k: v for k, v in hyper_parameters(run.optimizer).items() if k != "lr"},
            "lr": lr.state_dict() if isinstance(lr, Schedule) else lr,
            "optimizer_steps": run.state.steps,
            "streams": run.model.streams.state(),
            "done": run.done,
            "unsettled": run.unsettled,
            "stopped": run.stopped,
            "history": run.history.to_dict(),
            "epoch_losses": run.epoch_losses[: run.epoch_step],
        }
        if ranks.rank == 0
        else None
    )[0]
    if ranks.rank:
        rate = {} if isinstance(lr, Schedule) else {"lr": of_rank_0["lr"]}
        run.optimizer.assign({**of_rank_0["optimizer"], **rate})
        run.meet_optimizer()
        if isinstance(run.optimizer.lr, Schedule):
            run.optimizer.lr.load_state_dict(of_rank_0["lr"])
        run.state.steps = of_rank_0["optimizer_steps"]
        run.model.streams.restore(of_rank_0["streams"])
        run.done, run.unsettled = of_rank_0["done"], of_rank_0["unsettled"]
        run.stopped = of_rank_0["stopped"]
        vars(run.history).update(vars(History.from_dict(of_rank_0["history"])))
        run.epoch_losses[: run.epoch_step] = of_rank_0["epoch_losses"]
    for array in (run.model.parameters.flat, *run.state.buffers):
        ranks.broadcast(array)
    run.model.parameters.changed()


def send_parameters(run: Course, ranks: Communicator) -> None:
    """Rank 0's, to all ranks."""
    ranks.broadcast(run.model.parameters.flat)
    run.model.parameters.changed()
