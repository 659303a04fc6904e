"""What a command prints goes to files: no reader is needed, the disk is bounded, and nothing else is opened."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.command_output import MAX_UNREAD, CommandOutput, bound_unread
from tests.waiting import eventually

TAP = "import os\nline = b'x' * 99 + b'\\n'\nfor _ in range(160): os.write(1, line * 10_000)\nos.write(1, b'last\\n')"
SIZE = 160 * 1_000_000 + 5
MOUNTED = ("unshare", "--user", "--map-root-user", "--mount")


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.fixture
def output(tmp_path: Path) -> Iterator[CommandOutput]:
    made = CommandOutput(tmp_path / "runs" / "run-1" / "output", "command")
    yield made
    made.close()


def flood(output: CommandOutput) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TAP], stdout=output.files[0])


def ignore(_: bytes) -> None:
    """Take output and do nothing with it."""


def test_160_megabytes_that_nobody_reads_neither_stop_their_writer_nor_fill_the_disk(
    output: CommandOutput, tmp_path: Path
) -> None:
    """F40: as while an agent's worker stands still."""
    writer, most = flood(output), 0
    while writer.poll() is None:
        bound_unread(tmp_path / "runs")
        most = max(most, used(output.stdout))
    bound_unread(tmp_path / "runs")
    assert writer.returncode == 0
    assert output.stdout.stat().st_size == SIZE
    assert used(output.stdout) <= 2 * MAX_UNREAD
    assert most < SIZE / 2
    read = bytearray()
    output.pass_on_rest(read.extend, ignore)
    assert len(read) <= MAX_UNREAD
    assert b"bytes are missing: they came faster" in read
    assert read.endswith(b"x\nlast\n")


def test_what_was_read_is_given_back_to_the_disk(output: CommandOutput) -> None:
    writer, read, most = flood(output), bytearray(), 0

    def passed_on() -> bool:
        nonlocal most
        most = max(most, used(output.stdout))
        output.pass_on(lambda data: read.__setitem__(slice(None), data[-5:]), ignore)
        return read == b"last\n"

    eventually(passed_on, every=0)
    assert writer.wait(20) == 0
    assert used(output.stdout) <= 2 * 2**20
    assert most < SIZE / 2  # a reader that gets no processor for a moment falls behind


def test_the_next_process_goes_on_where_the_last_one_stopped(output: CommandOutput, tmp_path: Path) -> None:
    os.write(output.files[0], b"one\n")
    os.write(output.files[1], b"Error: first\n")
    output.pass_on(ignore, ignore)
    os.write(output.files[0], b"two\n")
    os.write(output.files[1], b"second\n")
    again = CommandOutput(output.stdout.parent, "command", again=True)
    read, errors, before = bytearray(), bytearray(), bytearray()
    again.pass_on_again(lambda _: None, before.extend)
    again.pass_on(read.extend, errors.extend)
    assert (read, before, errors) == (b"two\n", b"Error: first\n", b"second\n")
    assert again.says(b"one".__eq__)
    assert again.says(b"two".__eq__)
    assert not again.says(b"wo".__eq__)
    again.close()


@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_nothing_but_a_regular_file_is_opened(tmp_path: Path, kind: str) -> None:
    """A configuration has put it there; a new command's file takes its place, or is refused."""
    directory, secret = tmp_path / "output", tmp_path / "secret"
    directory.mkdir()
    secret.write_text("secret")
    for name in ("command.out", "command.err", "command.read"):
        path = directory / name
        if kind == "link":
            path.symlink_to(secret)
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.mkdir()
    with pytest.raises(OSError, match=r"."):
        CommandOutput(directory, "command", again=True)
    if kind != "directory":
        made = CommandOutput(directory, "command")
        os.write(made.files[0], b"text")
        made.close()
    assert secret.read_text() == "secret"


def test_a_kept_stdout_is_bounded(tmp_path: Path) -> None:
    output = CommandOutput(tmp_path, "command", keep_stdout=10)
    os.write(output.files[0], b"x" * 10)
    assert not output.pass_on(ignore, ignore)
    os.write(output.files[0], b"x")
    with pytest.raises(OSError, match="more than 10 bytes"):
        output.pass_on(ignore, ignore)
    output.close()


@pytest.mark.skipif(
    subprocess.run([*MOUNTED, "true"], check=False, capture_output=True).returncode != 0,
    reason="this machine lets nobody mount a small disk",
)
def test_a_full_disk_stops_no_command(tmp_path: Path) -> None:
    """F40: a program that prints, and does its work after that."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom agent.command_output import CommandOutput\n"
        "from agent.children import ChildRecords\nfrom agent.process import Child\n"
        "small, work = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "output = CommandOutput(small, 'command')\n"
        "argv = ['sh', '-c', 'seq 1000000; echo done > ' + str(work / 'done')]\n"
        "child = Child(argv, cwd=work, env={'PATH': '/usr/bin:/bin'}, records=ChildRecords(work / 'children'), run='r',"
        " output=output)\n"
        "sys.exit(child.finish(lambda _: None, lambda _: None, lambda: None))\n"
    )
    small = tmp_path / "small"
    small.mkdir()
    mount = f'mount -t tmpfs -o size=64k none {small} && exec {sys.executable} -c "$0" {small} {tmp_path}'
    done = subprocess.run([*MOUNTED, "sh", "-c", mount, program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "done").read_text() == "done\n"
