"""Alone or as a team: the choice that the engine makes while it works, on a clock of the test's own."""

import itertools

from fastbp.engine.threads.choice import Choice


def work(choice, seconds_of, until, steps, now=0.0):
    """Do entries of so many steps each until the clock says `until`; [(when, threads, steps)] of the legs."""
    legs = []
    while now < until:
        left = steps
        while left:
            threads, some = choice.next(2, left, now)
            began, left = now, left - some
            now += sum(seconds_of(threads, now) for _ in range(some))
            choice.note(threads, some, now - began, now)
            legs.append((began, threads, some))
    return legs


def share_of(threads, legs, since=0.0):
    counted = [(n, steps) for when, n, steps in legs if when >= since]
    return sum(steps for n, steps in counted if n == threads) / sum(steps for _, steps in counted)


def test_the_faster_way_is_taken():
    """By far most of the time, whichever it is, in long chunks and in calls of a single step."""
    for faster, steps in itertools.product((1, 2), (1, 1000)):
        legs = work(Choice(), lambda n, now, faster=faster: 40e-6 if n == faster else 70e-6, 1.0, steps)
        assert share_of(faster, legs) > 0.9


def test_one_disturbed_step_does_not_turn_it_over():
    """Another program takes the core for 2 ms, every 25 ms, from single steps of 40 us or 60 us."""
    disturbed = itertools.count()

    def seconds_of(threads, now):
        return (40e-6 if threads == 2 else 60e-6) + (2e-3 if next(disturbed) % 500 == 499 else 0)

    assert share_of(2, work(Choice(), seconds_of, 2.0, steps=1)) > 0.9


def test_a_lasting_change_is_noticed():
    """From some time on, another program has one of the cores: two workers then wait for each other."""

    def seconds_of(threads, now):
        return 60e-6 if threads == 1 else 40e-6 if now < 0.5 else 400e-6

    for steps in (1, 1000):
        choice = Choice()
        legs = work(choice, seconds_of, 2.0, steps)
        assert share_of(2, [leg for leg in legs if leg[0] < 0.5]) > 0.9
        assert share_of(1, legs, since=0.7) > 0.9


def test_who_works_alone_is_judged_at_once():
    """Steps of 1 ms: a slower lone worker is not asked for more than some steps at a time."""
    legs = work(Choice(), lambda n, now: 600e-6 if n == 2 else 1e-3, 3.0, steps=1000)
    alone = [n == 1 for _, n, steps in legs for _ in range(steps)]
    runs = [len(list(steps)) for one, steps in itertools.groupby(alone) if one]
    assert len(runs) > 2
    assert max(runs) <= 8


def test_long_steps_are_not_spent_on_trials():
    """Steps of 7 ms, or 4 ms as a team: longer than a trial, one to warm and one that counts will do."""
    for faster in (1, 2):
        legs = work(Choice(), lambda n, now, faster=faster: 4e-3 if n == faster else 7e-3, 4.0, steps=1000)
        slower = 3 - faster
        first = [steps for when, n, steps in legs if n == slower and when < 0.1]
        assert sum(first) <= (2 if slower == 1 else 3)  # a team that wakes slowly gets 10 ms
        assert share_of(faster, legs) > 0.97


def test_a_team_of_small_steps_that_wait_for_a_core_is_soon_given_up():
    """Steps of 3 us; as a team 2 ms each, since another program has one of the cores."""
    legs = work(Choice(), lambda n, now: 3e-6 if n == 1 else 2e-3, 1.0, steps=60_000)
    assert sum(steps for when, n, steps in legs if n == 2 and when < 0.01) < 20
    assert sum(2e-3 * steps for _, n, steps in legs if n == 2) < 0.15


def test_threads_that_have_to_wake_get_their_time():
    """The first steps of a team are slow when its threads start, and after each time that they slept."""
    slow = {"left": 20, "alone since": 0.0}

    def seconds_of(threads, now):
        if threads == 1:
            slow["alone since"] = slow["alone since"] or now
            return 60e-6
        if slow["alone since"] and now - slow["alone since"] > 0.01:
            slow["left"] = 8
        slow["alone since"] = 0.0
        slow["left"] -= 1
        return 90e-6 if slow["left"] >= 0 else 40e-6

    assert share_of(2, work(Choice(), seconds_of, 1.0, steps=1)) > 0.9


def test_a_trial_is_not_held_where_another_library_just_worked():
    """First another program has one of the cores for long. Then there are bursts of calls only, and before
    each another library computes, whose threads keep a core for 20 ms more."""
    choice, busy_until = Choice(), 5.0

    def seconds_of(threads, now):
        return 60e-6 if threads == 1 else 200e-6 if now < busy_until else 40e-6

    assert share_of(1, work(choice, seconds_of, busy_until, steps=1)) > 0.9
    for began in (10.0, 15.0, 20.0):
        busy_until = began + 0.02
        legs = work(choice, seconds_of, began + 0.2, steps=1, now=began)
    assert share_of(2, legs, since=began + 0.05) > 0.9


def test_short_bursts_get_a_trial_some_time():
    """Bursts of 5 ms with pauses of 0.1 s between. In the first two threads wake on one and the same core."""
    choice, legs = Choice(), []

    def seconds_of(threads, now):
        return 60e-6 if threads == 1 else 4e-3 if now < 0.15 else 40e-6

    for burst in range(100):
        began = 0.1 * burst
        legs += work(choice, seconds_of, began + 5e-3, steps=1, now=began)
    assert share_of(1, [leg for leg in legs if leg[0] < 1.0]) > 0.9  # that was taken for the usual time
    assert share_of(2, legs, since=2.0) > 0.9
