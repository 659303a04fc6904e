"""A chart of a pool has a bounded number of points, and shows every peak of the time that it stands for."""

from __future__ import annotations

from dataclasses import astuple
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.core.pool_history import KEPT, LONGEST, MOST_POINTS, Sample, bucket, merged, resolution, span

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
MOMENTS = st.one_of(
    st.none(),
    st.datetimes(timezones=st.just(UTC)),
    st.floats(0, LONGEST.total_seconds()).map(lambda age: NOW - timedelta(seconds=age)),
)


@given(MOMENTS, MOMENTS)
def test_whatever_time_is_asked_for_its_points_are_bounded_and_of_what_is_kept(
    since: datetime | None, until: datetime | None
) -> None:
    begin, end = span(since, until, NOW)
    assert NOW - LONGEST <= begin <= end <= NOW
    length, seconds = resolution(begin, end, NOW)
    assert seconds % length == 0
    points = (bucket(end, seconds) - bucket(begin, seconds)).total_seconds() / seconds + 1
    assert points <= MOST_POINTS
    finer = [each for each in KEPT if each < length]
    assert all(begin < NOW - KEPT[each] for each in finer)


@pytest.mark.parametrize(
    ("age", "points"),
    [
        (timedelta(hours=1), (30, 30)),
        (timedelta(hours=6), (30, 60)),
        (timedelta(days=1), (300, 300)),
        (timedelta(days=7), (300, 1500)),
        (timedelta(days=90), (3600, 5 * 3600)),
    ],
)
def test_the_finest_buckets_that_are_kept_are_shown(age: timedelta, points: tuple[int, int]) -> None:
    assert resolution(NOW - age, NOW, NOW) == points


@given(st.lists(st.tuples(st.integers(0, 10**5), st.integers(0, 9)), max_size=50), st.sampled_from([30, 60, 300]))
def test_a_point_has_the_largest_numbers_of_its_time(seen: list[tuple[int, int]], seconds: int) -> None:
    samples = [Sample(NOW + timedelta(seconds=at), size, 0, size, 0, 9 - size, 0) for at, size in sorted(seen)]
    points = list(merged(samples, seconds))
    assert [point.at for point in points] == sorted({bucket(sample.at, seconds) for sample in samples})
    for point in points:
        of_point = [astuple(sample)[1:] for sample in samples if bucket(sample.at, seconds) == point.at]
        assert astuple(point)[1:] == tuple(map(max, zip(*of_point, strict=True)))
    assert list(merged(points, seconds)) == points
