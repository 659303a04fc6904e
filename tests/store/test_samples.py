"""What a pool was is kept in buckets of several lengths, on both databases; a sample that is entered twice is one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workers.core.pool_history import KEPT, Sample, bucket
from workers.store import samples

DAY = timedelta(days=1)


@pytest.fixture
def enter(database):
    def entering(*of, pool="default"):
        with database.begin() as session:
            for sample in of:
                samples.record(session, pool, sample)

    return entering


@pytest.fixture
def kept(database, now):
    def found(seconds, pool="default"):
        with database.read() as session:
            return samples.between(session, pool, seconds, now - 400 * DAY, now + DAY)

    return found


def test_a_bucket_of_each_length_has_the_largest_numbers_and_is_the_same_entered_twice(enter, kept, now):
    first, second = Sample(now, 1, 5, 0, 0, 0, 7), Sample(now + timedelta(seconds=40), 2, 0, 3, 1, 0, 0)
    enter(first, second, first)
    enter(Sample(now, 99, 0, 0, 0, 0, 0), pool="another")
    assert [sample.ready for sample in kept(30)] == [1, 2]
    for seconds in (300, 3600):
        assert kept(seconds) == [Sample(bucket(now, seconds), 2, 5, 3, 1, 0, 7)]


def test_old_samples_go_by_the_length_of_their_buckets_a_batch_at_a_time(database, enter, kept, now):
    enter(*(Sample(now - hours * timedelta(hours=1), hours, 0, 0, 0, 0, 0) for hours in range(4)))
    with database.begin() as session:
        assert samples.purge(session, 30, now - timedelta(hours=1.5), 1) == 1
        assert samples.purge(session, 30, now - timedelta(hours=1.5), 100) == 1
        assert samples.purge(session, 30, now - timedelta(hours=1.5), 100) == 0
    assert [sample.ready for sample in kept(30)] == [1, 0]
    assert [sample.ready for sample in kept(3600)] == [3, 2, 1, 0]


def test_what_a_pool_leaves_is_bounded():
    assert sum(kept.total_seconds() / seconds for seconds, kept in KEPT.items()) < 5_000
