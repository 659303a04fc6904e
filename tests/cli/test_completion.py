"""A shell completes workspaces, pools, runs and tokens: by the protocol that its script speaks, and in a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.cli.conftest import PROGRAM, Answer
from tests.cli.test_looking import APPLY, finish_plan
from workers.cli.completion import STAND_INS
from workers.cli.main import app
from workers.services.runs import decide

Complete = Callable[..., list[str]]


def completed(shell: str, line: str, **more: str) -> Answer:
    """Complete the last word of a line, asked as the shell's script asks."""
    position = str(len(line.split(" ")) - 1)
    asked = {"COMP_WORDS": line, "COMP_CWORD": position, "_TYPER_COMPLETE_ARGS": line} | more
    done = CliRunner().invoke(app, env=asked | {"_TERRASLOT_COMPLETE": f"complete_{shell}"}, prog_name="terraslot")
    return Answer(done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def names(control) -> Complete:
    """Return what bash is offered; on record are a run that waits for a person, and two that are cancelled."""
    for name in ("net", "network", "dns"):
        control.workspace(name)
    control.agent()
    control.submit(APPLY, "net", run_id="aa-waits")
    finish_plan(control, "aa-waits", changed=True)
    control.submit(workspace="dns", run_id="ab-cancelled")
    decide.cancel(control.system, control.submit(workspace="dns", run_id="ac-gone").id)

    def offered(line: str) -> list[str]:
        done = completed("bash", line)
        assert (done.code, done.err) == (0, "")
        return done.out.split()

    return offered


def test_names_are_offered_where_they_are_wanted(names) -> None:
    assert names("terraslot plan ne") == ["net", "network"]
    assert names("terraslot apply --yes d") == ["dns"]
    assert names("terraslot workspace show net") == ["net", "network"]
    assert names("terraslot runs --workspace net") == ["net", "network"]
    assert names("terraslot pool show ") == names("terraslot slots --pool ") == names("terraslot top ") == ["default"]
    assert names("terraslot runs --status apply") == ["apply_pending", "applying"]
    assert names("terraslot plan ne%") == names("terraslot plan n_t") == names("terraslot plan net ") == []


def test_runs_are_offered_newest_first_and_those_alone_of_which_something_can_be_done(names) -> None:
    assert names("terraslot show ") == ["ac-gone", "ab-cancelled", "aa-waits"]
    assert names("terraslot logs --follow ab") == ["ab-cancelled"]
    assert names("terraslot confirm ") == names("terraslot confirm --no-wait ") == ["aa-waits"]
    assert "ac-gone" not in names("terraslot cancel ")


def test_commands_and_options_are_offered_by_the_page_that_has_them(names) -> None:
    assert names("terraslot re") == ["reencrypt"]
    assert "--events" in names("terraslot show --e")
    assert "--min" in names("terraslot pool update --m")
    assert "--help" in names("terraslot --h")


@pytest.mark.parametrize(
    ("shell", "words"),
    [("zsh", '"aa-waits":"net plan_and_apply apply_pending"'), ("fish", "aa-waits\tnet plan_and_apply apply_pending")],
)
def test_other_shells_are_told_what_a_run_is(names, shell, words) -> None:
    done = completed(shell, "terraslot confirm aa", _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert (done.code, done.err) == (0, "")
    assert words in done.out


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/terraslot.db", "postgresql://nobody@127.0.0.1:1/none", "no url", "postgresql://a@10.255.255.1/x"]
)  # fmt: skip
def test_a_database_that_does_not_answer_offers_nothing_and_says_nothing(environment, url) -> None:
    done = completed("bash", "terraslot show ", TERRASLOT_DATABASE_URL=url)
    assert (done.code, done.out.strip(), done.err) == (0, "", "")


def test_completion_loads_the_database_and_nothing_else(control) -> None:
    control.workspace()
    program = (
        "import atexit, sys; from workers.cli.main import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\nmain()"
    )
    heavy = {"celery", "kombu", "redis", "kubernetes", "psycopg", "workers.cli.runs"}
    for line, rest in (("terraslot plan n", {"net"}), ("terraslot pla", {"plan"})):
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1), "_TERRASLOT_COMPLETE": "complete_bash"}
        done = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | words, capture_output=True, text=True, check=True
        )
        assert set(done.stdout.split()) == rest
        assert not heavy & set(done.stderr.split())
    assert not {"sqlalchemy", "rich"} & set(done.stderr.split())


def test_every_command_whose_first_word_is_a_name_is_completed_without_being_loaded() -> None:
    kinds = {"WORKSPACE": "workspaces", "POOL": "pools", "RUN": "runs", "TOKEN": "tokens"}
    new = {"workspace create", "pool create", "token create"}  # theirs is a name that is not there yet
    root = get_command(app)
    wanted = {}
    for name in root.commands:  # type: ignore[attr-defined]
        command = root.get_command(None, name)  # type: ignore[attr-defined]
        below = {f"{name} {each}": found for each, found in getattr(command, "commands", {}).items()}
        for path, each in {name: command, **below}.items():
            first = next((param for param in each.params if param.param_type_name == "argument"), None)
            if first is not None and first.metavar in kinds and path not in new:
                wanted[path] = kinds[first.metavar]
    assert {command: offer.__name__ for command, offer in STAND_INS.items()} == wanted


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_script_that_is_installed_completes_in_a_real_bash(names, tmp_path) -> None:
    home = {"HOME": str(tmp_path), "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    asked = os.environ | home | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    subprocess.run([PROGRAM, "--install-completion", "bash"], env=asked, check=True, capture_output=True)
    script = (
        f"source {tmp_path}/.bashrc; COMP_WORDS=(terraslot confirm a); COMP_CWORD=2\n"
        "$(complete -p terraslot | sed 's/.*-F \\([^ ]*\\).*/\\1/') terraslot; echo \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(["bash", "-c", script], env=asked, capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("aa-waits", "")
