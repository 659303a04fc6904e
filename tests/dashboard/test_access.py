"""Who may do what where Flower has no authentication, and where the dashboard is read-only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from workers.core.access import Scope
from workers.dashboard import access
from workers.dashboard.api.problems import Refused

NOBODY = {"basic_auth": None, "auth": None, "unix_socket": "", "address": "127.0.0.1"}


def asks(
    host: str = "127.0.0.1:5555", *, method: str = "POST", headers: dict[str, str] | None = None,
    user: Any = True, **options: Any
) -> Any:  # fmt: skip
    """Return a request as Flower's handler holds it."""
    name = host.rsplit(":", 1)[0]
    request = SimpleNamespace(method=method, headers=headers or {}, host=host, host_name=name)
    application = SimpleNamespace(options=SimpleNamespace(**(NOBODY | options)))
    return SimpleNamespace(request=request, application=application, current_user=user)


def system(*, read_only: bool = False) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(dashboard_read_only=read_only, person="ada"))


@pytest.mark.parametrize("host", ["127.0.0.1:5555", "localhost:5555", "[::1]:5555", "127.0.0.1"])
def test_without_authentication_the_person_of_this_machine_may_do_everything(host: str) -> None:
    found = access.caller(asks(host), system())
    assert (found.actor.name, found.scopes) == ("ada", set(Scope))


@pytest.mark.parametrize(
    "request_",
    [
        asks(address="0.0.0.0"),
        asks(address=""),
        asks(address="10.1.2.3"),
        asks(unix_socket="/run/flower"),
        asks("evil.example:5555"),
        asks("127.0.0.1.evil.example"),
        asks("localhost.evil.example:5555"),
    ],
    ids=[
        "every address",
        "no address",
        "another address",
        "a socket",
        "a foreign name",
        "a like number",
        "a like name",
    ],
)
def test_without_authentication_others_may_only_look_and_are_told_why(request_: Any) -> None:
    found = access.caller(request_, system())
    assert found.scopes == {Scope.READ}
    with pytest.raises(Refused, match="configure Flower's authentication"):
        access.granted(found, Scope.DECIDE)


def test_whom_flower_signed_in_may_do_everything_under_their_own_name() -> None:
    basic = asks(basic_auth=["bob:secret"], headers={"Authorization": "Basic Ym9iOnNlY3JldA=="}, address="0.0.0.0")
    for handler, name in ((basic, "bob"), (asks(auth=".*@example.com", user="eve@example.com"), "eve@example.com")):
        found = access.caller(handler, system())
        assert (found.actor.name, found.scopes) == (name, set(Scope))
    assert access.caller(asks(auth=".*@example.com", user=None), system()) is None


def test_a_read_only_dashboard_lets_everybody_look_and_nobody_change() -> None:
    for handler in (asks(), asks(auth=".*", user="eve@example.com")):
        found = access.caller(handler, system(read_only=True))
        assert found.scopes == {Scope.READ}
        with pytest.raises(Refused, match="read-only"):
            access.granted(found, Scope.RUN)


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Origin": "http://127.0.0.1:5555"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://127.0.0.1:5556"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Authorization": "Bearer x"}, False),
    ],
)
def test_what_a_page_of_another_site_made_a_browser_send_is_known(headers: dict[str, str], foreign: bool) -> None:
    assert access.is_foreign(asks(headers=headers)) is foreign
    assert not access.is_foreign(asks(headers=headers, method="GET"))
