"""Tokens of the HTTP API by the command line: shown once, listed without themselves, worth nothing once revoked."""

from __future__ import annotations

from datetime import timedelta

import pytest

from workers.core.access import Scope
from workers.services.secrets import tokens
from workers.services.system import System


def test_a_token_is_printed_once_and_stored_nowhere(control, cli, monkeypatch) -> None:
    monkeypatch.setenv("TERRASLOT_ACTOR", "ada")
    made = cli("token create ci --scope read --scope run --for 12h")
    token = made.out.strip()
    assert (made.code, token.startswith("terraslot_"), len(token)) == (0, True, 53)
    assert "may read, run until" in made.err
    found = tokens.caller(control.system, token)
    assert found is not None
    assert (found.actor.name, found.scopes) == ("token:ci", {Scope.READ, Scope.RUN})
    assert token not in cli("token list").out + cli("token list --json").out
    (listed,) = cli("token list --json").json
    assert (listed["name"], listed["scopes"], listed["created_by"]) == ("ci", ["read", "run"], "ada")
    with control.system.database.read() as session:
        stored = session.connection().exec_driver_sql("SELECT * FROM api_tokens").all()
    assert token not in str(stored)
    assert token.removeprefix("terraslot_") not in str(stored)


def test_a_revoked_token_and_one_that_has_ended_are_good_for_nothing(control, cli, monkeypatch) -> None:
    revoked = cli("token create ci --scope read --json").json["token"]
    assert cli("token revoke ci").out == "The token ci is revoked.\n"
    ended = cli("token create night --scope decide --for 1h --json").json["token"]
    real = System.now
    monkeypatch.setattr(System, "now", lambda self: real(self) + timedelta(hours=1))
    assert [tokens.caller(control.system, token) for token in (revoked, ended, "", "terraslot_x")] == [None] * 4
    assert "no token has the name 'ci'" in cli("token revoke ci").misuse.lower()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("create Ci --scope read", "can't be the name of a token"),
        ("create ci --scope read --for 400d", "up to 366 days"),
        ("create ci --scope read --for 0s", "up to 366 days"),
    ],
)
def test_what_can_be_no_token_is_refused(control, cli, command, says) -> None:
    assert says in cli(f"token {command}").misuse
    assert cli("token list").out == "No tokens.\n"


def test_a_scope_is_needed_and_a_name_is_taken_once(control, cli) -> None:
    assert (cli("token create ci").code, cli("token create ci --scope all").code) == (2, 2)
    cli("token create ci --scope read")
    assert "There is a token 'ci' already" in cli("token create ci --scope run").sentence
