"""A home has one owner, and what lies in it is for its owner's eyes only."""

import os
import stat
import subprocess
import sys

import pytest

from workers.cluster.processes import identify
from workers.core.errors import StillInUse
from workers.embedded import state
from workers.embedded.state import Running
from workers.protocol.errors import InvalidRequest
from workers.settings import Settings, settings

HOLD = (
    "import sys; from pathlib import Path; from workers.embedded import state\n"
    "with state.owned(Path(sys.argv[1])): print('owned', flush=True); sys.stdin.read()"
)


def test_a_second_owner_is_refused_with_the_firsts_pid(tmp_path):
    home = tmp_path / "home"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as first:
        assert first.stdout.readline() == b"owned\n"
        assert state.supervisor(home).pid == first.pid
        with pytest.raises(StillInUse, match=rf"process {first.pid}.*terraslot down"), state.owned(home):
            pass
        first.kill()
    assert state.supervisor(home) is None
    with state.owned(home):
        assert state.supervisor(home) == identify(os.getpid())
    assert state.supervisor(home) is None


def test_home_and_description_are_readable_by_their_owner_only(tmp_path, monkeypatch):
    home = tmp_path / "home"
    with state.owned(home):
        Running(redis_url="redis://:secret@127.0.0.1:1/0").write(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "system.json").stat().st_mode) == 0o600


def test_every_process_reads_its_settings_from_the_description(tmp_path, monkeypatch):
    home = tmp_path / "home"
    with state.owned(home):
        Running(redis_url="redis://:secret@127.0.0.1:1/0", settings={"cycle_seconds": 0.5}).write(home)
    monkeypatch.setenv("TERRASLOT_HOME", str(home))
    settings.cache_clear()
    assert (Settings().redis_url, Settings().cycle_seconds) == ("redis://:secret@127.0.0.1:1/0", 0.5)
    state.forget(home)
    assert Settings().redis_url == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize("where", ["in-the-way", "in-the-way/home"])
def test_a_home_that_cannot_be_used_is_named(tmp_path, where):
    (tmp_path / "in-the-way").write_text("")
    unusable = pytest.raises(InvalidRequest, match=rf"{tmp_path / where} can't be used .*TERRASLOT_HOME")
    with unusable, state.owned(tmp_path / where):
        pass
    with pytest.raises(InvalidRequest, match="TERRASLOT_HOME"):
        state.running(tmp_path / where)


def test_a_description_that_makes_no_sense_is_named(tmp_path):
    (tmp_path / "system.json").write_text("{")
    with pytest.raises(InvalidRequest, match=r"system\.json"):
        state.running(tmp_path)
