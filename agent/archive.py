"""Fetching one archive: a child downloads, checks and unpacks it, so that a hostile one takes nothing of the agent."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from agent import archive_reader
from agent.execution import Execution, unavailable
from agent.files import read_regular
from workers.protocol.sources import ArchiveSource, without_credentials

_LONGEST_ANSWER = 2**20


def fetch_archive(
    execution: Execution,
    source: ArchiveSource,
    tree: Path,
    environment: Mapping[str, str],
    login: Mapping[str, str],
    *,
    without: Sequence[str],
) -> list[str]:
    """Unpack an archive, and return the names of the state files in it, which are not unpacked.

    The password for https is ``ARCHIVE_PASSWORD`` of ``login``, with ``ARCHIVE_USERNAME``. ``without``: patterns of
    names. Raises :class:`PhaseFailed` with ``source_unavailable``.
    """
    shown = without_credentials(source.url).partition("?")[0]
    execution.log.write(f"Fetching {shown}")
    password = login.get("ARCHIVE_PASSWORD") if urlsplit(source.url).scheme == "https" else None
    given = {
        "url": source.url,
        "sha256": source.sha256,
        "username": login.get("ARCHIVE_USERNAME", ""),
        "password": password,
    }
    file = execution.directory / "archive"
    program = [sys.executable, "-sP", "-m", archive_reader.__name__, str(file), str(tree), *without]
    finished = execution.run(
        program,
        cwd=execution.directory,
        env={**environment, archive_reader.GIVEN: json.dumps(given)},
        keep_stdout=_LONGEST_ANSWER,
    )
    file.unlink(missing_ok=True)
    execution.check()
    try:
        answer = json.loads(read_regular(finished.stdout))
    except ValueError:
        raise unavailable(f"The archive {shown} can't be read: its reader was ended with {finished.code}.") from None
    if "refused" in answer:
        raise unavailable(f"The archive {shown} {answer['refused']}. Correct the archive, or the workspace's source.")
    return list(answer["left_out"])
