"""A user of this machine as whom local agents run, so that what a configuration can read is not what Terraslot can.

Only root can start processes as another user. All local pools share this one: it separates their configurations from
Terraslot's secrets, not the pools from one another.
"""

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from workers.protocol.errors import InvalidRequest
from workers.protocol.settings import PREFIX

VARIABLE = f"{PREFIX}LOCAL_USER"
_CHECK = "import agent, os, sys; os.chdir(sys.argv[1])"
_CHECK_SECONDS = 60


@dataclass(frozen=True, slots=True)
class SystemUser:
    """A user of this machine, with its group."""

    name: str
    uid: int
    gid: int
    directory: str

    def environment(self, work: Path) -> dict[str, str]:
        """Return the variables by which programs find the user's own files; ``work`` where it has no home."""
        home = self.directory if Path(self.directory).is_dir() else str(work)
        return {"HOME": home, "USER": self.name, "LOGNAME": self.name}

    def own(self, path: Path) -> None:
        """Give a directory or file to the user, and to nobody else."""
        os.chown(path, self.uid, self.gid, follow_symlinks=False)
        path.chmod(0o700 if path.is_dir() else 0o600)

    def adopt(self, tree: Path) -> None:
        """Give a tree to the user that was root's. What is the user's already is hostile, and not looked at."""
        tree.mkdir(exist_ok=True)
        if tree.stat().st_uid == self.uid:
            return
        for directory, _, files in os.walk(tree, topdown=False):
            for name in files:
                os.chown(Path(directory, name), self.uid, self.gid, follow_symlinks=False)
            self.own(Path(directory))

    def check(self, directory: Path) -> None:
        """Raise :class:`InvalidRequest` where no agent of this user could start and enter ``directory``."""
        argv = [sys.executable, "-P", "-c", _CHECK, str(directory)]
        try:
            subprocess.run(  # noqa: S603 - an argv of our own, and no shell
                argv, cwd="/", user=self.uid, group=self.gid, extra_groups=[], check=True, capture_output=True,
                timeout=_CHECK_SECONDS, env=os.environ | self.environment(Path("/")),
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            why = said.decode(errors="replace").strip().rpartition("\n")[2]
            raise InvalidRequest(
                f"{VARIABLE}: the user '{self.name}' can't run {sys.executable} or enter {directory} ({why}). Install "
                f"Terraslot where this user can read it, as in /opt, and set {PREFIX}HOME to a directory it can reach."
            ) from error


def named(name: str) -> SystemUser | None:
    """Return the user of this name; None for an empty one. Raises :class:`InvalidRequest` where it can't be used."""
    if not name:
        return None
    if os.geteuid() != 0:
        raise InvalidRequest(f"{VARIABLE}: only root can start agents as '{name}'. Unset it, or start it as root.")
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        missing = f"{VARIABLE}: this machine has no user '{name}'. Create it: useradd --system {name}"
        raise InvalidRequest(missing) from None
    if entry.pw_uid == 0:
        raise InvalidRequest(f"{VARIABLE}: '{name}' is root. Name a user without rights of its own.")
    return SystemUser(name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
