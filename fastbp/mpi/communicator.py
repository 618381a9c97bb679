"""The processes of one training: mpi4py's ranks. What they add up, what they tell each other, how they end.

Ranks meet in two places only. Within steps they add gradients (`add`); between chunks of steps every rank
tells all others something (`share`), in the same order everywhere. A rank that fails says so instead of what
it was to share, so that all fail. One that fails while the others are within steps cannot be heard, so the
job is ended.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections import Counter
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastbp import checks

Array = NDArray[Any]

# Who waits for others between chunks, perhaps while rank 0 validates, looks for them without a break for so
# long, and then in breaks of so long: the core is free for those who work.
SPIN_SECONDS, NAP_SECONDS = 1e-3, 2e-4
# So long a rank that fails within steps waits for the others to fail, too, before it ends the job.
GRACE_SECONDS = 5.0
# Bytes from which sums are made by halves: more messages, but no byte twice.
HALVES_FROM_BYTES = 1 << 16


class Failure(NamedTuple):
    """What a rank shares that cannot go on."""

    kind: str
    text: str


class Communicator:
    """The ranks of an mpi4py.MPI.Intracomm, in a context of their own: no message is taken for one of the
    caller's.

    rank, size : this process's number, from 0, and how many there are: a power of two.
    within_steps : whether the others may be waiting for this rank's part of a sum.

    TypeError or ValueError for what is no such communicator, or not of a power of two ranks.
    """

    def __init__(self, comm: Any) -> None:
        _require_intracommunicator(comm)
        self.rank, self.size = int(comm.rank), int(comm.size)
        if self.size & (self.size - 1):
            raise ValueError(
                f"comm has {self.size} ranks, expected 1, 2, 4, 8, ...: gradients are added in pairs of them"
            )
        self._comm = comm.Dup()
        self.within_steps = False
        self._failed = False  # and all ranks know it
        self._other: Array = np.empty(0)

    # ---- sums -------------------------------------------------------------------------------------------

    def add(self, values: Array) -> None:
        """Make `values` (contiguous) the sum over all ranks, along the tree of their numbers, in place.

        Each number is ((v0 + v1) + (v2 + v3)) + ..., whichever of the two ways is taken.
        """
        if self._other.size < values.size or self._other.dtype != values.dtype:
            self._other = np.empty_like(values)
        if self.size > 2 and values.nbytes >= HALVES_FROM_BYTES:
            self._add_by_halves(values)
            return
        distance, other = 1, self._other[: values.size]
        while distance < self.size:
            partner = self.rank ^ distance
            self._comm.Sendrecv(values, dest=partner, recvbuf=other, source=partner)
            np.add(values, other, out=values)
            distance *= 2

    def _add_by_halves(self, values: Array) -> None:
        """Each pair shares its sums out, half to each, until a rank has 1 / size of all; then back.

        2 (size - 1) / size of the bytes are sent instead of log2(size) times all (Thakur, Rabenseifner and
        Gropp, Int. J. High Performance Computing Applications 19 (2005) 49). In between, a rank has the whole
        sum of its own part: an optimizer whose state is shared out would do its step there.
        """
        first, last, cuts = 0, values.size, []
        distance = 1
        while distance < self.size:
            partner, middle = self.rank ^ distance, (first + last) // 2
            mine, theirs = (first, middle), (middle, last)
            if self.rank & distance:
                mine, theirs = theirs, mine
            other = self._other[: mine[1] - mine[0]]
            self._comm.Sendrecv(values[slice(*theirs)], dest=partner, recvbuf=other, source=partner)
            own = values[slice(*mine)]
            np.add(own, other, out=own)
            cuts.append((partner, mine, theirs))
            first, last = mine
            distance *= 2
        for partner, mine, theirs in reversed(cuts):
            self._comm.Sendrecv(
                values[slice(*mine)], dest=partner, recvbuf=values[slice(*theirs)], source=partner
            )

    # ---- between chunks ---------------------------------------------------------------------------------

    def share(self, mine: Any) -> list[Any]:
        """What every rank gives, by rank. Where one gives an error instead, it is raised on all ranks."""
        packed = pickle.dumps(mine)  # what cannot be sent fails before anybody is met
        self._meet(None)
        everyone = [pickle.loads(given) for given in self._comm.allgather(packed)]
        for rank, given in enumerate(everyone):
            if isinstance(given, Failure):
                self._failed = True
                raise _error_of(rank, given)
        self.within_steps = False
        return everyone

    def broadcast(self, values: Array) -> None:
        """Rank 0's numbers on all ranks, in place (contiguous)."""
        self._comm.Bcast(values, root=0)

    def _meet(self, seconds: float | None) -> bool:
        """Wait until all ranks are here, or no longer than that; whether they are."""
        request, began = self._comm.Ibarrier(), time.monotonic()
        while not request.Test():
            waited = time.monotonic() - began
            if seconds is not None and waited > seconds:
                return False
            if waited > SPIN_SECONDS:
                time.sleep(NAP_SECONDS)
        return True

    def fail(self, error: BaseException) -> None:
        """Tell the others that this rank has failed, if they do not know; end the job if they cannot be
        told."""
        if self._failed:
            return
        told = False
        try:
            if self._meet(GRACE_SECONDS if self.within_steps else None):
                self._comm.allgather(pickle.dumps(Failure(type(error).__name__, str(error))))
                told = True
        finally:  # also at Ctrl-C
            if not told:
                self.abort(error)

    def abort(self, error: BaseException) -> None:
        """End all ranks, now."""
        print(f"rank {self.rank} ends all {self.size} ranks:", file=sys.stderr)
        traceback.print_exception(error)
        sys.stderr.flush()
        self._comm.Abort(1)

    def close(self) -> None:
        """Free the context."""
        self._comm.Free()

    # ---- the machine ------------------------------------------------------------------------------------

    def threads(self) -> int | None:
        """How many threads this rank may have, if the ranks on one machine share the same cores; None: they
        do not. (Met by all ranks.)"""
        if not hasattr(os, "sched_getaffinity"):
            cores: tuple[int, ...] = tuple(range(os.cpu_count() or 1))
        else:
            cores = tuple(sorted(os.sched_getaffinity(0)))
        from mpi4py import MPI

        machine = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
        sharing = Counter(machine.allgather(cores))[cores]
        machine.Free()
        return max(1, len(cores) // sharing) if sharing > 1 else None


class joined:
    """A context in which a communicator's ranks do something together (None: there is but this process).

    What is raised within it on one rank is raised on all; the others get it as an error of the same kind that
    names the rank. A `Communicator` of a context around this one is taken as it is.
    """

    def __init__(self, comm: Any) -> None:
        self._own = comm is not None and not isinstance(comm, Communicator)
        self._ranks: Communicator | None = Communicator(comm) if self._own else comm

    def __enter__(self) -> Communicator | None:
        return self._ranks

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._own or self._ranks is None:
            return
        if error is not None:
            self._ranks.fail(error)
        else:
            self._ranks.share(None)
        self._ranks.close()


def _error_of(rank: int, failure: Failure) -> Exception:
    kinds = {"ValueError": ValueError, "TypeError": TypeError, "FloatingPointError": FloatingPointError}
    kind: type[Exception] = kinds.get(failure.kind, RuntimeError)
    what = failure.text if kind is not RuntimeError else f"{failure.kind}: {failure.text}"
    return kind(f"rank {rank}: {what}")


def _require_intracommunicator(comm: Any) -> None:
    expected = f"comm must be an mpi4py.MPI.Intracomm such as MPI.COMM_WORLD, got {checks.shown(comm)}"
    try:
        from mpi4py import MPI
    except ImportError:
        raise TypeError(f"{expected} (mpi4py is not installed: pip install 'fastbp[mpi]')") from None
    if not isinstance(comm, MPI.Intracomm):
        raise TypeError(expected)
    if comm == MPI.COMM_NULL:
        raise ValueError("comm is MPI.COMM_NULL, of which this process is no part")
