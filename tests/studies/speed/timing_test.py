"""Functions timed in turn: who runs when, and when it is enough."""

from codesign.studies.speed.timing import interleaved


def _run(repeats, **settings):
    calls = []
    times = interleaved(
        repeats, lambda: calls.append("a"), lambda: calls.append("b"), **settings
    )
    return "".join(calls), times.shape


def test_functions_run_in_turn_after_a_run_that_is_not_timed():
    assert _run(2) == ("ab" + 2 * "ab", (2, 2))


def test_three_rounds_are_timed_however_long_they_take():
    assert _run(7, enough_s=0.0) == ("ab" + 3 * "ab", (2, 3))
    assert _run(2, enough_s=0.0) == ("ab" + 2 * "ab", (2, 2))
    assert _run(7, enough_s=600.0) == ("ab" + 7 * "ab", (2, 7))
