"""Addresses of Redis servers: read, written, and refused in one sentence without their passwords."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.protocol.redis_address import RedisAddress, parse

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=20)
HOSTS = st.tuples(st.sampled_from(["127.0.0.1", "redis.example", "::1"]), st.integers(1, 65535))


@st.composite
def addresses(draw: st.DrawFn) -> RedisAddress:
    kind = draw(st.sampled_from(["tcp", "unix", "sentinel"]))
    who = {"username": draw(st.none() | TEXT), "password": draw(st.none() | TEXT), "db": draw(st.integers(0, 15))}
    if kind == "unix":
        return RedisAddress(path="/run/redis%20 1.sock", **who)
    tls = draw(st.booleans())
    files = {"ssl_ca_certs": "/etc/ca & co.pem"} if tls and draw(st.booleans()) else {}
    if kind == "tcp":
        return RedisAddress(hosts=(draw(HOSTS),), tls=tls, files=files, **who)
    hosts = tuple(draw(st.lists(HOSTS, min_size=1, max_size=3)))
    sentinel = draw(st.sampled_from([{}, {"sentinel_password": "a&b"}]))
    return RedisAddress(hosts=hosts, tls=tls, files=files, master="main", sentinel=sentinel, **who)


@given(addresses())
def test_an_address_is_read_as_it_was_written(address: RedisAddress) -> None:
    assert parse(address.url) == address


@given(addresses())
def test_what_is_shown_holds_no_credential_and_no_file(address: RedisAddress) -> None:
    shown = parse(address.public)
    assert (shown.username, shown.password, shown.files, shown.sentinel) == (None, None, {}, {})
    assert (shown.hosts, shown.path, shown.db, shown.master) == (
        address.hosts,
        address.path,
        address.db,
        address.master,
    )


def test_celerys_way_to_name_sentinels_is_read_alike() -> None:
    celerys = parse("sentinel://:secret@a:1/2?master=main;sentinel://b:2;sentinel://c")
    assert celerys == parse("sentinel://:secret@a:1,b:2,c:26379/2?master=main")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://:secret@host", "must start with redis://"),
        ("redis://:secret@host/first", "'first' in place of a database's number"),
        ("redis://:secret@host:port", "Port could not be cast"),
        ("redis://:secret@host?ssl=true", "a parameter that is not known: ssl"),
        ("redis://:secret@host?ssl_ca_certs=/ca.pem", "names certificates, but not TLS"),
        ("rediss://:secret@host?ssl_certfile=/c.pem", "needs both ssl_certfile and ssl_keyfile"),
        ("redis://:secret@a,b", "names several hosts"),
        ("sentinel://:secret@a,b", "add ?master=NAME"),
        ("unix://:secret@", "names no socket"),
    ],
)
def test_an_address_that_can_not_be_is_refused_without_its_password(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        parse(url)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
