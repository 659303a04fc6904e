"""Help is whole and comes at once: it loads what it is about, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from workers.cli.main import app

_COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


def page(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--help"], prog_name="terraslot")
    assert done.exit_code == 0, done.output
    return done.output


def loaded_by(*arguments: str) -> set[str]:
    program = (
        "import sys; from workers.cli.main import app\n"
        f"app({list(arguments)!r}, standalone_mode=False)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_is_on_the_first_page_and_has_one_of_its_own(command: str) -> None:
    assert any(line.startswith(f"  {command} ") for line in page().splitlines())
    assert page(command).startswith(f"Usage: terraslot {command} ")


def test_the_first_page_is_cut_nowhere() -> None:
    assert "..." not in page().partition("--help")[2]


@pytest.mark.parametrize("group", ["workspace", "pool", "agent"])
def test_a_groups_page_is_cut_nowhere_on_a_narrow_terminal(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." not in page(group).partition("--help")[2]


def test_the_first_page_loads_no_command() -> None:
    assert not {"sqlalchemy", "celery", "redis", "kubernetes", "pydantic", "rich"} & loaded_by("--help")


def test_looking_at_runs_loads_neither_celery_nor_a_driver_that_nobody_needs() -> None:
    assert not {"celery", "redis", "kubernetes", "psycopg"} & loaded_by("runs", "--help")


def test_a_command_that_is_not_there_is_answered_with_the_one_it_resembles() -> None:
    done = CliRunner().invoke(app, ["slot"])
    assert done.exit_code == 2
    assert "Did you mean 'slots'?" in done.output
