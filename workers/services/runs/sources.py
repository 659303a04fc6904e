"""Whether the source of a new run is there, as far as that can be told without an agent: before a slot is taken.

What its agents could fetch is never refused. A server is asked outside of any transaction, with bounds, and what it
says is shared by those who ask the same within seconds. Where it can't be asked from here, or too many are asked at
once, the run is entered all the same, and its first event says so: its agent finds out. Without git nothing is asked.
"""

import threading
import time
from collections.abc import Mapping

from workers import git
from workers.core.errors import UnknownSource
from workers.git import Answer, Question
from workers.protocol.encryption import NoKey
from workers.protocol.git_remote import DECIDES_SERVER
from workers.protocol.sources import GitSource
from workers.services.secrets import variables
from workers.services.system import System
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec
from workers.store.database import Session

SHARED_SECONDS = 3.0
# A server that has not answered is left alone for so long.
SILENT_SECONDS = 30.0
# Threads of a worker that may be busy with this: the others do what does not wait for strangers' servers.
PLACES = 3


class NotAsked(Exception):
    """A server has to be asked first, outside of the transaction."""

    def __init__(self, question: Question) -> None:
        super().__init__()
        self.question = question


class Asked:
    """What servers have said lately, to this process."""

    def __init__(self) -> None:
        self._places = threading.BoundedSemaphore(PLACES)
        self._lock = threading.Lock()
        self._asking: dict[Question, threading.Lock] = {}
        self._found: dict[Question | str, tuple[float, Answer]] = {}  # a host: that has not answered

    def get(self, question: Question) -> Answer | None:
        """Return what is known; None where somebody has to ask."""
        with self._lock:
            now = time.monotonic()
            self._found = {about: found for about, found in self._found.items() if now < found[0]}
            found = self._found.get(question) or self._found.get(question.host)
            return found[1] if found else None

    def ask(self, question: Question) -> Answer:
        """Ask, or wait for the one who asks the same."""
        if not self._places.acquire(blocking=False):
            return Answer(unknown="many sources were looked for just then")
        try:
            with self._lock:
                asking = self._asking.setdefault(question, threading.Lock())
            with asking:
                return self.get(question) or self._ask(question)
        finally:
            with self._lock:  # one that nobody asks again would stay for ever, with its login
                self._asking.pop(question, None)
            self._places.release()

    def _ask(self, question: Question) -> Answer:
        try:
            answer = git.ask(question)
        except OSError as error:
            answer = Answer(unknown=f"git can't be started on the control plane: {error.strerror}")
        with self._lock:
            now = time.monotonic()
            self._found[question] = now + SHARED_SECONDS, answer
            if answer.timed_out:
                self._found[question.host] = now + SILENT_SECONDS, answer
        return answer


ASKED = Asked()


def expect_there(
    system: System,
    session: Session,
    pool: PoolSpec,
    workspace: WorkspaceSpec,
    *,
    of_run: str | None,
    answers: Mapping[Question, Answer],
) -> str | None:
    """Return why nobody could tell whether the source of a run is there; None where it is, or agents alone look.

    ``of_run``: the run's own sensitive variables, encrypted. Raises :class:`UnknownSource` where it is not there, and
    :class:`NotAsked` where a server has to be asked that is not among ``answers``.
    """
    if not isinstance(workspace.source, GitSource) or not git.is_installed():
        return None
    try:
        given = {**workspace.environment, **variables.environment(system, session, pool, workspace, of_run)}
    except NoKey:
        return _not_looked_for("this control worker lacks the key of its login")
    here = system.pods(pool).on_this_machine and not system.settings.local_user
    heeded = {name: value for name, value in given.items() if git.heeds(name, here=here)}
    if others := sorted(name for name in given.keys() - heeded if DECIDES_SERVER.fullmatch(name)):
        return _not_looked_for(f"git on the control plane is not given the workspace's {others[0]}")
    question = Question(workspace.source.url, workspace.source.ref, frozenset(heeded.items()), here)
    answer = answers.get(question) or ASKED.get(question)
    if answer is None:
        raise NotAsked(question)
    if answer.wrong:
        raise UnknownSource(f"Workspace {workspace.name}: {answer.wrong}.")
    return _not_looked_for(answer.unknown) if answer.unknown else None


def _not_looked_for(why: str) -> str:
    return f"its source was not looked for: {why}"
