"""The guide, executed from its top to its bottom as its reader would, on a system of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guide.md"
_BLOCK = re.compile(r"^```(sh|hcl)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_MENTIONED = re.compile(r'(?:\b[Rr]un |"run_id": ")([0-9a-f]{8}-[0-9a-f-]{27})\b')

# What the page says of an output beside its exit code.
SHOWN = {
    'terraslot apply net --yes --message "the first apply"': "2 added, 0 changed, 0 destroyed",
    "terraslot show RUN --plan": "-/+ replace terraform_data.server",
    "terraslot logs RUN --phase plan": "$ terraform plan",
    "terraslot slots": "net apply_pending",
    'terraslot confirm RUN --message "looks right"': "Its plan destroys 1 resource.",
    "terraslot show RUN --events": "looks right",
    "terraslot apply net --destroy": "0 to add, 0 to change, 2 to destroy",
    "terraslot plan net --replace terraform_data.network": "will be replaced, as requested",
    "terraslot plan packed": "2 to add, 0 to change, 0 to destroy",
    'terraslot plan net --target "not an address"': "'not an address' is no address",
    "TERRASLOT_ACTOR=anna terraslot confirm RUN": "anna has asked for it",
    "terraslot plan tracked": "has no branch, tag or commit 'mian'",
    "terraslot workspace show private": "GIT_SSH_KEY",
    "terraslot show RUN": "moving the state",
    "terraslot runs --status pending": "moving the state",
    "terraslot unlock RUN": "has met no lock",
    "terraslot state rescued RUN > ~/rescued.tfstate": "no state",
    "terraslot workspace show net": "token",
    "terraslot show nothing --json": '{\n  "error": "No run has an id',
    "terraslot down": "waits for a confirmation",
    "terraslot workspace delete net": "Its state stays in",
}


def environment(home: Path) -> dict[str, str]:
    foreign = ("TERRASLOT_", "TF_CLI_CONFIG_FILE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    whoever = {f"GIT_{role}_{fact}": "me" for role in ("AUTHOR", "COMMITTER") for fact in ("NAME", "EMAIL")}
    return kept | whoever | {"HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}


def execute(command: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], env=environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=180,
    )  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    execute("terraslot down --yes", tmp_path)


@pytest.mark.timeout(600)  # some seventy commands, one after the other
def test_every_command_of_the_guide_ends_as_the_page_says(home: Path) -> None:
    run, expected = "", dict(SHOWN)
    for kind, body in _BLOCK.findall(GUIDE.read_text()):
        if kind == "hcl":
            first, _, code = body.partition("\n")
            file = home / first.removeprefix("# ~/")
            file.parent.mkdir(parents=True)
            file.write_text(code)
            continue
        for line in body.splitlines():
            command, _, comment = line.partition("  #")
            done = execute(command.replace("RUN", run), home)
            said = done.stdout + done.stderr
            ends = re.search(r"ends with (\d)", comment)
            assert done.returncode == (int(ends[1]) if ends else 0), f"{command}: {said}"
            assert expected.pop(command.strip(), "") in said, f"{command}: {said}"
            run = next(iter(reversed(_MENTIONED.findall(said))), run)
    assert expected == {}, "commands that the guide no longer has"
