"""What commands say when something breaks inside: a traceback, and nobody's secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog
from pydantic import ValidationError

from agent.phases import Phases
from agent.prepared import PreparedDirectories
from agent.programs import Installed, Programs
from agent.settings import AgentSettings
from workers.cli import system as cli_system
from workers.embedded.state import Running
from workers.embedded.valkey import Valkey
from workers.protocol.pool_secret import PoolSecret
from workers.protocol.sources import SensitiveVariables
from workers.services.secrets.credentials import _Content
from workers.settings import Settings

SECRET = "hunter2"
URL = f"redis://:{SECRET}@127.0.0.1:1/0"


def test_a_traceback_on_stderr_holds_no_local_variable(control, capsys) -> None:
    cli_system.system()
    variables = {"token": SECRET}
    try:
        variables["name"]
    except KeyError:
        structlog.get_logger("services").exception("order can't be made", run="run-1")
    said = capsys.readouterr().err
    assert "order can't be made" in said
    assert "Traceback" in said
    assert "KeyError: 'name'" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    "holder",
    [
        SensitiveVariables(variables={"token": SECRET}, environment={"TOKEN": SECRET}),
        _Content(password=SECRET, payload_key=SECRET),
        PoolSecret(username="u", password=SECRET, payload_keys=(SECRET,)),
        AgentSettings(pool="p", agent="a", work_dir="/work", redis_url=URL, broker_url=URL),  # type: ignore[arg-type]
        Settings(redis_url=URL, broker_url=URL, database_url=f"postgresql://u:{SECRET}@h/d", encryption_keys=SECRET),  # type: ignore[arg-type]
        Running(redis_url=URL, settings={"redis_url": URL, "encryption_keys": SECRET}),
        Valkey(Path("/work"), 1, SECRET),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_what_holds_a_secret_says_nothing_of_it(holder: object) -> None:
    assert SECRET not in f"{holder!r} {holder}"


def test_an_agents_environment_is_not_told_either(tmp_path: Path) -> None:
    prepared = PreparedDirectories(tmp_path, most=0, seconds=0)
    programs = Programs((Installed(("terraform",)),))
    phases = Phases(programs, {"TOKEN": SECRET}, tmp_path, prepared, None, lambda _: None, 0)
    assert SECRET not in f"{phases!r} {phases}"


def test_what_can_not_be_read_of_secrets_is_not_repeated() -> None:
    for model, wrong in (
        (SensitiveVariables, {"variables": {"no name": SECRET}, "environment": {"A": {"B": SECRET}}}),
        (PoolSecret, {"username": "u", "password": {"it is": SECRET}}),
    ):
        with pytest.raises(ValidationError) as refused:
            model.model_validate(wrong)
        assert SECRET not in str(refused.value)
