"""Git's access to a repository for as long as an agent fetches it: what ssh reads from files is there meanwhile."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agent.files import write_atomically
from workers.protocol.git_remote import Remote, login_files, remote


@contextmanager
def reached(url: str, environment: Mapping[str, str], login: Mapping[str, str], private: Path) -> Iterator[Remote]:
    """Yield how git reaches a URL; what ssh has to read from files is in the new directory ``private`` meanwhile.

    The key for ssh is ``GIT_SSH_KEY`` of ``login``, and the servers that are trusted are those of
    ``GIT_SSH_KNOWN_HOSTS``. Raises ``OSError``.
    """
    origin, files = remote(url, environment, login), login_files(login)
    if not files:
        yield origin
        return
    private.mkdir(mode=0o700)
    try:
        for name, content in files.items():
            write_atomically(private / name, content)
        yield origin.with_files(private, files)
    finally:
        shutil.rmtree(private, ignore_errors=True)
