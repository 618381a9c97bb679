"""Whether the teams that compiled code starts by itself pay: a vote between legs of the real work.

What a team costs lies outside of its job, too: its numbers are in the caches of several cores, and whoever
reads them next waits for them to cross. Where cores share no cache that takes longer than to compute them.
So from time to time jobs get teams for a moment and none for another one, and what counts is how much was
done in how much time, with what lies between the jobs. That is possible because results are the same bits.

Several threads may write here at the same time; then a leg is worth less, nothing else happens.
"""

from __future__ import annotations

from fastbp.engine.compile.jit import inner
from fastbp.engine.compile.struct import Struct, struct

# A leg takes so many cycles (1 ms) and on until a job like its first one comes again, so that in a loop it is
# of whole turns; but no more than so many (8 ms). The WARMING before it does not count: threads wake, numbers
# cross.
LEG, LONGEST_LEG, WARMING = 2_500_000, 20_000_000, 600_000
# From the end of a job to the next one's beginning so many times its own cycles count, at most: the caller
# reads its numbers, or does something else.
BETWEEN = 16
# A way has won when it has so many more votes than the other one, or most of so many.
LEAD, MOST_VOTES = 2, 5
# Cycles from one trial to the next (0.1 s); twice as many after each that changed nothing, up to 0.8 s.
FIRST_WAIT, LONGEST_WAIT = 250_000_000, 2_000_000_000


@struct
class Trial(Struct):
    """A trial, or what came of the last one."""

    lost: int  # 1: teams did
    leg: int  # 1, 3, ...: with teams; 2, 4, ...: without; 0: no trial goes on
    votes: int  # for teams, less those against
    cycles: int  # of this leg; below 0: it does not count yet
    work: int  # the nanoseconds that its jobs take one worker, about
    first: int  # the kind of the first of them
    team_cycles: int  # of the leg with teams before this one
    team_work: int
    began: int  # the last job that counts, in cycles
    took: int  # 0: it is not done
    nanoseconds: int
    wait: int  # cycles from the last trial to the next
    due: int  # when that is


@inner
def _begin_leg(trial, leg):
    trial.leg, trial.cycles, trial.work = leg, -WARMING, 0


@inner
def _count_last(trial, now):
    """The last job, and what came after it."""
    if trial.took == 0:
        return
    cycles = trial.cycles + min(now - trial.began, (1 + BETWEEN) * trial.took)
    if trial.cycles < 0:
        trial.cycles = min(cycles, 0)
    else:
        trial.cycles, trial.work = cycles, trial.work + trial.nanoseconds
    trial.took = 0


@inner
def _end_leg(trial, now):
    if trial.leg % 2 == 1:
        trial.team_cycles, trial.team_work = trial.cycles, trial.work
        _begin_leg(trial, trial.leg + 1)
        return
    trial.votes += 1 if trial.team_work * trial.cycles > trial.work * trial.team_cycles else -1
    if abs(trial.votes) < LEAD and trial.leg < 2 * MOST_VOTES:
        _begin_leg(trial, trial.leg + 1)
        return
    lost = 1 if trial.votes < 0 else 0
    trial.wait = min(2 * trial.wait, LONGEST_WAIT) if lost == trial.lost and trial.wait > 0 else FIRST_WAIT
    trial.lost, trial.leg, trial.votes, trial.due = lost, 0, 0, now + trial.wait


@inner
def favours_a_team(trial, now, kind, nanoseconds):
    """Whether the next job, which could have a team, shall; now: in cycles, when it begins; kind: a number
    that tells jobs apart; nanoseconds: what it takes one worker."""
    if trial.leg == 0:
        if now < trial.due:
            return trial.lost == 0
        trial.took = 0
        _begin_leg(trial, 1)
    _count_last(trial, now)
    if trial.cycles == 0:
        trial.first = kind
    elif trial.cycles >= LONGEST_LEG or (trial.cycles >= LEG and kind == trial.first):
        _end_leg(trial, now)
    trial.began, trial.nanoseconds = now, nanoseconds
    return trial.leg % 2 == 1 if trial.leg > 0 else trial.lost == 0


@inner
def note(trial, began, now):
    """A job that began then is done."""
    if trial.leg > 0 and began == trial.began:
        trial.took = now - began
