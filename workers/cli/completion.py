"""What a shell offers for a word that is being typed: names from the database, which alone is loaded.

A person who types is interrupted by no error and waits for no server that does not answer: then nothing is offered.
"""

import signal
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand
from typer.main import get_command

from workers.core.lifecycle import RunStatus

_PATIENCE = 2.0  # seconds
_WAITING = frozenset({RunStatus.APPLY_PENDING})
_UNFINISHED = frozenset(status for status in RunStatus if not status.is_over)
_APT = {"confirm": _WAITING, "discard": _WAITING, "extend": _WAITING, "cancel": _UNFINISHED}


def workspaces(incomplete: str) -> Collection[str]:
    """Offer workspaces."""
    return _asked("workspaces", incomplete)


def pools(incomplete: str) -> Collection[str]:
    """Offer pools."""
    return _asked("pools", incomplete)


def tokens(incomplete: str) -> Collection[str]:
    """Offer tokens."""
    return _asked("tokens", incomplete)


def runs(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Offer runs, the newest first, each with what it is: only those of which the command can do anything."""
    apt = _APT.get(str(ctx.info_name).rpartition(" ")[2], frozenset(RunStatus))
    found = _asked("runs", incomplete, apt)
    return [(run, f"{workspace} {kind} {status}") for run, workspace, kind, status in found]


def _asked(what: str, *wanted: Any) -> Collection[Any]:
    """Ask the database; nothing where it can't be asked, for whatever reason, or not in time."""
    try:
        # Completing the name of a command does without.
        from workers.settings import settings  # noqa: PLC0415
        from workers.store import suggestions  # noqa: PLC0415
        from workers.store.database import Database  # noqa: PLC0415

        with _in_time(), Database(settings().database).read() as session:
            found: Collection[Any] = getattr(suggestions, what)(session, *wanted)
            return found
    except Exception:  # noqa: BLE001 - whatever it is, the command itself will say it
        return ()


@contextmanager
def _in_time() -> Iterator[None]:
    def too_late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, too_late)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# By what their first word is. While that is completed, they stand for themselves: to load them takes twice the time.
_FIRST_WORD: dict[Callable[..., Collection[Any]], tuple[str, ...]] = {
    workspaces: (
        "plan", "apply", "workspace update", "workspace show", "workspace delete", "workspace lock", "workspace unlock",
    ),
    pools: (
        "top", "pool show", "pool update", "pool scale", "pool drain", "pool undrain", "pool rotate", "pool delete",
        "pool adopt-deployment", "pool return-to-deployment",
    ),
    runs: (
        "confirm", "extend", "discard", "cancel", "show", "logs", "unlock", "state rescued", "state push",
        "state give-up",
    ),
    tokens: ("token revoke",),
}  # fmt: skip
STAND_INS = {command: offer for offer, commands in _FIRST_WORD.items() for command in commands}


def stand_in(words: Sequence[str], loaded: Callable[[], Any]) -> Any:
    """Return what completes the first word after these; None where that takes the command itself.

    ``loaded`` returns the command, for its options.
    """
    offer = STAND_INS.get(" ".join(words))
    if offer is None:
        return None

    class StandIn(TyperCommand):
        def shell_complete(self, ctx: Any, incomplete: str) -> Any:
            return loaded().shell_complete(ctx, incomplete)

    made = typer.Typer(add_completion=False)

    @made.command(words[-1], cls=StandIn)
    def _(word: Annotated[str, typer.Argument(autocompletion=offer)]) -> None: ...

    return get_command(made)
