"""Spans of time: what is of whole days and what is not, together and apart."""

from __future__ import annotations

import pytest

from models.spans import DAY, Span

DAYS = range(-2, 5)
HOUR = DAY // 24
# Around the ends of days, and far from them.
TIMES = sorted(day * DAY + more for day in DAYS for more in (-1, 0, 1, 5 * HOUR))
ENDS = (None, -DAY - HOUR, -1, 0, 1, HOUR, DAY - 1, DAY, DAY + HOUR, 2 * DAY, 2 * DAY + 7 * HOUR)


def holds(span: Span, at: int) -> bool:
    return (span.since is None or at >= span.since) and (span.until is None or at < span.until)


def holds_day(span: Span, day: int) -> bool:
    return holds(Span(span.since and span.since // DAY, span.until and span.until // DAY), day)


@pytest.mark.parametrize("now", [5 * DAY, DAY + 2 * HOUR, 2 * DAY + 8 * HOUR, 0])
@pytest.mark.parametrize("since", ENDS)
@pytest.mark.parametrize("until", ENDS)
def test_whole_days_with_what_is_added_and_taken_off_are_the_span(
    since: int | None, until: int | None, now: int
) -> None:
    span = Span(since, until)
    days, edges = span.rounded(now)
    assert days == days.whole
    for at in TIMES:
        assert holds(days, at) + sum(sign * holds(edge, at) for sign, edge in edges) == holds(span, at)
    if now > TIMES[-1] and not days.is_empty:
        assert all((edge.until or 0) - (edge.since or 0) <= DAY // 2 for _, edge in edges)


@pytest.mark.parametrize(
    ("until", "edge"),
    [
        (3 * DAY + 5 * HOUR, (1, Span(3 * DAY, 3 * DAY + 5 * HOUR))),
        (3 * DAY + 9 * HOUR, (-1, Span(3 * DAY + 9 * HOUR, 4 * DAY))),
    ],
)
def test_of_today_nothing_lies_after_now(until: int, edge: tuple[int, Span]) -> None:
    assert Span(None, until).rounded(3 * DAY + 11 * HOUR)[1] == [edge]


@pytest.mark.parametrize("since", ENDS)
@pytest.mark.parametrize("until", ENDS)
def test_the_whole_days_in_a_span_and_those_that_it_touches(since: int | None, until: int | None) -> None:
    span = Span(since, until)
    for day in DAYS:
        # The first microseconds and the last one alone may be in it, too.
        times = (*range(day * DAY, (day + 1) * DAY, HOUR), day * DAY + 1, (day + 1) * DAY - 1)
        assert holds_day(span.whole, day) == all(holds(span, at) for at in times)
        assert span.is_empty or holds_day(span.widened, day) == any(holds(span, at) for at in times)
