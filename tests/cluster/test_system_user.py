"""Agents of another user: what they can reach of Terraslot's, and what is refused. Only root can start any."""

import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.waiting import eventually
from workers.cluster import processes, system_user
from workers.cluster.local import LocalPods
from workers.protocol.errors import InvalidRequest
from workers.specs.pools import PoolSpec

POOL = PoolSpec(name="default")
USER = "nobody"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start agents as another user")
# It says as whom it runs and what it can read, and writes where it may.
AGENT = """
cd "$TERRASLOT_WORK_DIR" && echo "user $(id -u) groups $(id -G) home $HOME" > said
cd "$HOME_OF_ALL"
for file in encryption.key terraslot.db logs/control.log; do
  cat "$file" > /dev/null 2>&1 && echo "read $file" >> "$TERRASLOT_WORK_DIR/said"
done
cd "$TERRASLOT_WORK_DIR"
cat "$TERRASLOT_SECRET_DIR/pool.json" >> said
mkdir -p "$HOME_OF_ALL/state/w" && echo kept > "$HOME_OF_ALL/state/w/terraform.tfstate" && echo stored >> said
touch ../pod.json "$HOME_OF_ALL/pods/default/forged" 2>/dev/null && echo forged >> said
mkdir children
echo '{"pid": VICTIM, "started": STARTED}' > children/VICTIM
echo done >> said
exec sleep 600
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Return a home that another user can reach: pytest's own directories are this user's alone."""
    directory = Path(tempfile.mkdtemp(prefix="terraslot-"))
    directory.chmod(0o711)
    home = directory / "home"
    (home / "logs").mkdir(parents=True)
    for name in ("encryption.key", "terraslot.db", "logs/control.log"):
        (home / name).write_text("secret")
    yield home
    shutil.rmtree(directory)


@as_root
def test_an_agent_of_another_user_reaches_what_is_its_own_and_nothing_else(home):
    """Also a record that it wrote of another user's process ends nothing."""
    victim = processes.start(
        [sys.executable, "-c", "import signal; signal.pause()"], environment={}, directory=home, log=home / "log"
    )
    started = processes.psutil.Process(victim.pid).create_time()
    script = AGENT.replace("VICTIM", str(victim.pid)).replace("STARTED", repr(started))
    user = system_user.named(USER)
    pods = LocalPods(home, {"HOME_OF_ALL": str(home)}, command=("/bin/sh", "-c", script), user=user)
    pods.put_secret(POOL, "credential\n")
    pods.create(POOL, "a1")
    directory = home / "pods/default/a1"
    try:
        said = directory / "work/said"
        eventually(lambda: said.exists() and said.read_text().endswith("done\n"))
        assert said.read_text().splitlines() == [
            f"user {user.uid} groups {user.gid} home {directory / 'work'}", "credential", "stored", "done"
        ]  # fmt: skip
        assert stat.S_IMODE((home / "secrets/default/pool.json").stat().st_mode) == 0o600
        [pod] = pods.list("default")
        pods.delete(pod, force=True)
        eventually(lambda: not pods.list("default"))
        assert victim.alive
    finally:
        victim.send(SIGKILL)
        eventually(lambda: victim.exit_code() == -SIGKILL)


@as_root
def test_what_root_had_before_becomes_the_users(home):
    pods = LocalPods(home, {}, command=("/bin/true",))
    pods.put_secret(POOL, "credential")
    kept = home / "state/w/terraform.tfstate"
    kept.parent.mkdir(parents=True)
    kept.write_text("state")
    kept.with_name("link").symlink_to("/etc/passwd")
    user = system_user.named(USER)
    LocalPods(home, {}, command=("/bin/true",), user=user).put_secret(POOL, "credential")
    LocalPods(home, {}, command=("/bin/true",), user=user).create(POOL, "a1")
    assert {path.lstat().st_uid for path in [home / "secrets/default/pool.json", kept, kept.parent]} == {user.uid}
    assert Path("/etc/passwd").stat().st_uid == 0


@as_root
@pytest.mark.parametrize(
    ("name", "said"), [("no-such-user", "this machine has no user 'no-such-user'"), ("root", "'root' is root")]
)
def test_a_user_that_does_not_do_is_refused(name, said):
    with pytest.raises(InvalidRequest, match=f"TERRASLOT_LOCAL_USER: {said}"):
        system_user.named(name)


def test_only_root_can_name_one(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InvalidRequest, match="TERRASLOT_LOCAL_USER: only root can"):
        system_user.named(USER)


@as_root
def test_a_home_that_the_user_can_not_reach_is_refused_at_the_start(tmp_path):
    tmp_path.chmod(0o700)
    with pytest.raises(InvalidRequest, match=r"LOCAL_USER: the user 'nobody' can't run .* or enter .*as in /opt"):
        LocalPods(tmp_path / "home", {}, user=system_user.named(USER)).open()


def test_no_name_means_the_user_of_this_process():
    assert system_user.named("") is None
