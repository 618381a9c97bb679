"""Alone or as a team: whichever was faster lately."""

from __future__ import annotations

import math

# A trial goes in legs of so long. A team's ends when it has won or so much time is over: threads that slept
# may wake on one and the same core, and it takes the system some milliseconds to part them; who works alone
# shows at once how fast that is. The slower way is tried again after so long, twice as long each time that it
# stays so.
TRIAL_SECONDS, MOST_TRIAL_SECONDS, RETRY_SECONDS, MOST_DOUBLINGS = 0.002, 0.01, 0.05, 6
# How long a way must have been slower than it was known to be to count as twice as slow: what a step lost
# because some other program had the core for a moment does not turn a choice over, and a prediction may
# measure one batch at a time.
DOUBLING_SECONDS = 0.02
# Whoever calls again after such a pause may have used another library's threads in it, which go on to spin on
# their cores for some 20 ms (OpenBLAS): the slower way is not tried again before so much time is over, unless
# the last trial is that long ago (and twice as long each time): there may be such a pause after every few
# steps.
PAUSE_SECONDS, SETTLING_SECONDS, LONG_AGO_SECONDS = 0.01, 0.03, 1.0
# After a change of ways so many steps do not count: threads wake, and weights move from cache to cache. One
# is enough if it is as long as a leg.
STEPS_TO_WARM = 2
# Steps of the first leg of a way that nobody knows anything of, and steps of any leg; but one that is longer
# than a leg is one.
FIRST_STEPS, FEWEST_STEPS = 8, 4
# The slower way is not tried again before so many steps are done either: a trial of long ones takes longer.
RETRY_STEPS = 40


class Choice:
    """Alone or as a team, whichever was faster lately.

    A team pays where a core's share of a step is large against the barriers, and where the cores are free;
    both depend on the machine and on what else it does. So both ways are tried on a few steps of the real
    work, and the slower one again from time to time. That is possible because the results are the same bits.
    """

    def __init__(self) -> None:
        self.seconds_per_step: dict[int, float] = {}
        self._last = 0  # the way of the last leg
        self._warming = 0  # steps of this way that shall not count before the next ones do
        self._pace = 0.0  # seconds of a step that did not count, the last one
        self._best = 0  # the way that was known to be faster after the last trial
        self._trying, self._trial_left = 0, 0.0  # the way on trial, or 0; seconds until the verdict
        self._lost = 0  # trials in a row that the slower way lost
        self._tried_at = 0.0
        self._ended = self._settled_at = 0.0  # the end of the last leg; when the next trial may be

    def next(self, threads: int, steps: int, now: float) -> tuple[int, int]:
        """How many threads to take, and for how many of the steps to come."""
        known, ways = self.seconds_per_step, (threads, 1)
        if now - self._ended > PAUSE_SECONDS:
            self._settled_at = now + SETTLING_SECONDS
        n = self._trying
        if n not in ways:
            untried = [way for way in ways if way not in known]
            best = min(ways, key=lambda way: known.get(way, 0.0))
            if untried:
                n = self._trying = untried[0]
            elif self._is_time_for_a_trial(now):
                n = self._trying = sum(ways) - best  # the other one
            else:
                n, self._trying = best, 0
            self._trial_left = MOST_TRIAL_SECONDS if n > 1 else TRIAL_SECONDS
        if n != self._last:
            self._warming, self._last = 1 if self._best_pace() > TRIAL_SECONDS else STEPS_TO_WARM, n
        if self._warming:  # one by one as long as nobody knows whether the first is as long as a leg
            return n, min(steps, self._warming if self._best_pace() else 1)
        if self._trying:
            # At its own pace: where another program has a core, a team may be a hundred times as slow.
            pace = known.get(n) or self._best_pace() or self._pace
            some = 1 if pace > TRIAL_SECONDS else max(FEWEST_STEPS, int(TRIAL_SECONDS / max(pace, 1e-9)))
            return n, min(steps, some if n in known else min(some, FIRST_STEPS))
        return n, steps

    def _best_pace(self) -> float:
        """Seconds of a step of the faster way; 0: nobody knows."""
        return min(self.seconds_per_step.values(), default=0.0)

    def _is_time_for_a_trial(self, now: float) -> bool:
        wait = RETRY_SECONDS if now > self._settled_at else LONG_AGO_SECONDS
        return now > self._tried_at + max(wait, RETRY_STEPS * self._best_pace()) * 2**self._lost

    def note(self, threads: int, steps: int, seconds: float, now: float) -> None:
        """So many steps were done so."""
        self._ended = now
        if self._warming:
            self._pace = seconds / steps
            self._warming = 0 if self._pace > TRIAL_SECONDS else max(0, self._warming - steps)
            return
        known = self.seconds_per_step
        most = known.get(threads, math.inf) * (1 + seconds / DOUBLING_SECONDS)
        known[threads] = min(seconds / steps, most)
        if self._trying:
            self._trial_left -= seconds
            won = known[threads] < min((s for n, s in known.items() if n != threads), default=0.0)
            if self._trial_left > 0 and not won:
                return
            self._trying = 0
        best = min(known, key=lambda n: known[n])
        if best != self._best:  # perhaps a moment's disturbance only: look again soon
            self._best, self._lost, self._tried_at = best, 0, now
        elif threads != best:
            self._lost, self._tried_at = min(self._lost + 1, MOST_DOUBLINGS), now
