"""What the two images are, read from the Dockerfile: no container engine is at hand."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agent.programs import candidates
from agent.settings import AgentSettings
from tests.packaging.dockerfile import DOCKERFILE, ROOT, ancestry, stages
from workers.specs.kubernetes import WORK_DIR
from workers.specs.pod_security import AGENT_USER

TARGETS = ["workers", "agent"]


def test_the_linter_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")

    said = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)

    assert (said.returncode, said.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_user_without_rights_named_by_its_number(target: str) -> None:
    # Kubernetes can tell that a number is not root; of a name it can't.
    assert stages()[target].last("USER") == "10001:10001"


def test_the_agents_user_and_directory_are_those_of_the_pods_that_the_platform_creates() -> None:
    agent = stages()["agent"]

    assert agent.last("USER") == f"{AGENT_USER}:{AGENT_USER}"
    assert f"TERRASLOT_WORK_DIR={WORK_DIR}" in agent.all("ENV")
    assert [text for stage in ancestry("agent") for text in stage.all("VOLUME")] == [WORK_DIR]


@pytest.mark.parametrize("target", TARGETS)
def test_signals_reach_the_program_no_shell_stands_between(target: str) -> None:
    [entrypoint] = [text for stage in ancestry(target) for text in stage.all("ENTRYPOINT")]

    assert json.loads(entrypoint) == ["/usr/bin/tini", "--"]
    assert isinstance(json.loads(stages()[target].last("CMD")), list)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_copied_from_stages_and_brings_no_tool_that_built_it(target: str) -> None:
    copies = [text for stage in ancestry(target) for text in stage.all("COPY") + stage.all("ADD")]

    assert copies
    assert all(text.startswith("--from=") for text in copies)
    assert "build" not in {stage.name for stage in ancestry(target)}


def test_only_the_agent_holds_git_and_terraform() -> None:
    of_workers, of_agent = (
        " ".join(text for stage in ancestry(target) for _, text in stage.instructions) for target in TARGETS
    )

    assert re.search(r"\bgit\b", of_agent)
    assert "--from=terraform" in of_agent
    assert not re.search(r"\bgit\b|terraform\b", of_workers)


def test_terraform_is_taken_only_by_its_checksum_and_its_version_is_an_argument() -> None:
    stage = stages()["terraform"]
    arguments = dict(text.partition("=")[::2] for text in stage.all("ARG"))
    [add] = stage.all("ADD")

    assert add.startswith("--checksum=sha256:${TERRAFORM_SHA256} ${TERRAFORM_URL} ")
    assert "${TERRAFORM_VERSION}" in arguments["TERRAFORM_URL"]
    assert arguments["TERRAFORM_VERSION"] == arguments["TERRAFORM_SHA256"] == ""


def test_everything_that_python_installs_is_held_to_a_hash_of_the_lock_file() -> None:
    installs = [
        command
        for stage in stages().values()
        for run in stage.all("RUN")
        for command in run.split("&&")
        if re.search(r"\b(pip install|uv build)\b", command)
    ]

    assert len(installs) == 5
    assert all("--require-hashes" in command for command in installs)


def test_kubernetes_probes_an_image_itself() -> None:
    assert not [stage.name for stage in stages().values() if stage.all("HEALTHCHECK")]


def test_the_context_holds_what_is_built_and_nothing_else() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    assert lines[0] == "*"
    assert all((ROOT / line[1:]).exists() for line in lines if line.startswith("!"))
    assert not {"!.git", "!.venv", "!tests", "!charts"} & set(lines)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """The address of a server that has one archive of each program, as their makers lay them out."""
    for path, program in (("1.9.8/terraform_1.9.8", "terraform"), ("v1.10.1/tofu_1.10.1", "tofu")):
        archive = tmp_path / f"{path}_linux_amd64.zip"
        archive.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(archive, "w") as content:
            content.writestr(program, f"#!/bin/sh\necho {program}\n")
            content.writestr("LICENSE.txt", "")
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(mirror: str, directory: Path, versions: str) -> subprocess.CompletedProcess[str]:
    """Run what the build runs for further versions."""
    arguments = {"MORE_VERSIONS": versions, "TERRAFORM_MIRROR": mirror, "TOFU_MIRROR": mirror, "TARGETARCH": "amd64"}
    program = [sys.executable, ROOT / "docker" / "fetch_versions.py", directory]
    return subprocess.run(program, env=arguments, capture_output=True, text=True, check=False)


def checksum(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_several_versions_are_put_where_the_agent_finds_them(mirror: str, tmp_path: Path) -> None:
    of_terraform, of_tofu = map(checksum, sorted(tmp_path.glob("*/*.zip")))
    versions = tmp_path / "versions"

    done = fetch(mirror, versions, f"terraform/1.9.8@{of_terraform}  tofu/1.10.1@{of_tofu}")

    assert (done.returncode, done.stderr) == (0, "")
    settings = AgentSettings(pool="p", agent="a", work_dir=tmp_path, terraform_versions=versions)
    found = {str(each.program): each.command for each in candidates(settings) if each.program}
    assert list(found) == ["terraform 1.9.8", "tofu 1.10.1"]
    assert subprocess.run(found["tofu 1.10.1"], capture_output=True, check=True).stdout == b"tofu\n"
    assert "TERRASLOT_TERRAFORM_VERSIONS=/opt/versions" in stages()["agent"].all("ENV")
    assert "--from=versions /opt/versions/ /opt/versions/" in stages()["agent"].all("COPY")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("terraform/1.9.8@sha256:" + "0" * 64, "has the checksum sha256:"),
        ("terraform/1.9.8", "is not PROGRAM/VERSION@sha256:HEX"),
        ("packer/1.9.8@sha256:" + "0" * 64, "is not PROGRAM/VERSION@sha256:HEX"),
        ("terraform/../1.9.8@sha256:" + "0" * 64, "is not PROGRAM/VERSION@sha256:HEX"),
    ],
)
def test_another_archive_than_the_named_one_or_what_names_none_ends_the_build(
    mirror: str, tmp_path: Path, entry: str, said: str
) -> None:
    done = fetch(mirror, tmp_path / "versions", entry)

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "versions").iterdir())


def test_without_the_argument_there_is_an_empty_directory(tmp_path: Path) -> None:
    assert fetch("", tmp_path / "versions", "").returncode == 0
    assert list((tmp_path / "versions").iterdir()) == []
