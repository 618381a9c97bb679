"""Teams in compiled code that lose against one worker are not started, and those that win are."""

import numpy as np
import pytest
from numba import config, njit

from fastbp.engine.compile.struct import at, size_of, view_of
from fastbp.engine.threads import trial as trials
from fastbp.engine.threads.trial import Trial, favours_a_team, note

pytestmark = pytest.mark.skipif(config.DISABLE_JIT, reason="there are no teams")

trial_at = view_of(Trial)


@njit
def favours(address, now, kind, nanoseconds):
    return favours_a_team(trial_at(address), now, kind, nanoseconds)


@njit
def done(address, began, now):
    note(trial_at(address), began, now)


class Program:
    """It does the same job all the time, on a clock of its own."""

    def __init__(self):
        self._memory = np.zeros(size_of(Trial) // 8, np.int64)
        self.address, self.now = self._memory.ctypes.data, 1_000_000_000
        self.trial = at(Trial, self.address)

    def goes_on(self, cycles, team, alone, pause=0):
        """For so many cycles; team, alone: cycles of a job and of what comes after it. Returns the share of
        jobs that had a team."""
        end, of_team, count = self.now + cycles, 0, 0
        while self.now < end:
            way = favours(self.address, self.now, 0, 40_000)
            job, after = team if way else alone
            done(self.address, self.now, self.now + job)
            self.now += job + after + pause
            of_team, count = of_team + way, count + 1
        return of_team / count


MOMENT, LONG = 10 * trials.LEG, 4 * trials.LONGEST_WAIT


@pytest.mark.parametrize(
    ("team", "alone", "wins"),
    [
        ((60_000, 0), (100_000, 0), True),
        ((130_000, 0), (100_000, 0), False),
        ((60_000, 90_000), (100_000, 20_000), False),  # its numbers take long to cross
        ((60_000, 20_000), (100_000, 20_000), True),
        ((3_000_000, 0), (5_000_000, 0), True),
        ((5_000_000, 0), (3_000_000, 0), False),
    ],
)
def test_the_faster_way_is_taken(team, alone, wins):
    program = Program()
    program.goes_on(MOMENT + 10 * max(team[0], alone[0]), team, alone)
    assert program.trial.leg == 0 and program.trial.lost == (not wins)
    share = program.goes_on(LONG, team, alone)
    assert share > 0.98 if wins else share < 0.02


@pytest.mark.parametrize("wins", [False, True])
def test_a_loop_of_jobs_of_several_kinds(wins):
    """Each kind takes more or less than what it was expected to: only whole turns of the loop are like one
    another. A turn takes longer than a leg."""
    program = Program()
    expected = (40_000, 200_000, 40_000, 400_000, 40_000, 100_000)
    take = (600_000, 300_000, 100_000, 1_500_000, 400_000, 100_000)
    for _ in range(60):
        for kind, (nanoseconds, cycles) in enumerate(zip(expected, take, strict=True)):
            way = favours(program.address, program.now, kind, nanoseconds)
            took = cycles * (9 if way == wins else 10) // 10
            done(program.address, program.now, program.now + took)
            program.now += took
    assert program.trial.leg == 0 and program.trial.lost == (not wins)


def test_the_other_way_is_tried_again():
    program, slow, fast = Program(), (200_000, 0), (100_000, 0)
    for team, alone in ((slow, fast), (fast, slow), (slow, fast)):
        program.goes_on(LONG, team, alone)
        assert program.trial.lost == (team == slow)


def test_pauses_do_not_count():
    """A pause after some jobs, which has nothing to do with them, turns nothing over."""
    program, rng = Program(), np.random.default_rng(0)
    for _ in range(200):
        program.goes_on(trials.LEG // 2, (60_000, 0), (100_000, 0))
        program.now += int(rng.integers(0, 100 * trials.LEG))
    assert program.trial.lost == 0


def test_one_disturbance_turns_nothing_over():
    program = Program()
    program.goes_on(trials.LEG // 2, (60_000, 0), (100_000, 0))
    program.goes_on(1, (20 * trials.LEG, 0), (20 * trials.LEG, 0))  # another program has the core
    program.goes_on(MOMENT, (60_000, 0), (100_000, 0))
    assert program.trial.leg == 0 and program.trial.lost == 0


def test_jobs_that_no_trial_has_asked_for_do_not_count():
    program = Program()
    assert favours(program.address, program.now, 0, 40_000)
    done(program.address, program.now - 5, program.now)
    assert program.trial.took == 0
    done(program.address, program.now, program.now + 7)
    assert program.trial.took == 7
