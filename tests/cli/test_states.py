"""States that runs could not save and locks that they have met, on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Control
from workers.core.lifecycle import RunEvent
from workers.protocol.encryption import new_key
from workers.protocol.kinds import RunKind
from workers.protocol.states import RescuedState, StateLock, pack
from workers.services.runs import finish
from workers.store import states

STATE = b'{"serial": 1}\n'


@pytest.fixture(autouse=True)
def _key(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRASLOT_ENCRYPTION_KEYS", new_key())


@pytest.fixture
def failed(control: Control) -> str:
    """A run that could not save its state, and has met a lock."""
    control.workspace()
    run = control.submit(RunKind.PLAN_AND_APPLY, run_id="failed-1")
    keys, lock = control.system.settings.keyring, StateLock(id="l1", who="ana@laptop", created="2026-11-26T10:00:00Z")

    def also(session: object, ended: object) -> None:
        states.keep(session, ended, RescuedState(bytes=len(STATE), sent=True), keys.encrypt_bytes(pack([STATE]) or b""))
        states.replace(session, run.id, content := states.of(session, run.id).content, expect=content)
        states.enter_lock(session, ended, lock, None, control.system.now())

    assert finish.end(control.system, run, RunEvent.FAILED, also=also)
    return run.id


def test_a_rescued_state_is_shown_with_its_run_and_printed_as_terraform_wrote_it(
    control: Control, cli, failed: str
) -> None:
    assert cli(f"state rescued {failed}").out.encode() == STATE
    shown = cli(f"show {failed}").out
    assert "14 bytes, not saved, kept here" in shown
    assert "No run of this system is known to hold that lock" in shown
    document = cli(f"show {failed} --json").json
    assert (document["rescued_state"]["kept"], document["state_lock"]["who"]) == (True, "ana@laptop")

    assert "could not save its state" in cli("workspace delete net").sentence
    control.submit(RunKind.PLAN_AND_APPLY, run_id="held")
    assert f"`terraslot state push {failed}` saves it" in cli("show held --json").json["waiting"]
    assert "plans show as new what it made" in cli("show held --json").json["unsaved_state"]


def test_what_can_not_be_done_is_said_before_anything_is_sent(control: Control, cli, failed: str) -> None:
    control.submit(run_id="other")
    for command in ("state rescued other", "state push other"):
        assert "Run other has left no state" in cli(command).sentence
    assert "Run other has met no lock" in cli("unlock other").sentence
    assert "The lock is not ended" in json.loads(cli(f"unlock {failed} --json").out)["error"]
    assert control.system.redis.llen("terraslot.control") == 0
