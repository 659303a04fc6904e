"""What callers of the API write: queries and bodies."""

from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field

from workers.core.confirmation import DEFAULT_EXTENSION
from workers.core.lifecycle import RunStatus
from workers.dashboard.api.operation import Given
from workers.protocol.kinds import RunKind
from workers.services.runs.submit import RunRequest

_LARGEST_ID = 2**63 - 1


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str) else given  # what is given once stands alone in a query


class RunQuery(Given):
    """Which runs are listed, the newest first. ``before``: the id of the last run of the page before."""

    workspace: str | None = None
    pool: str | None = None
    kind: RunKind | None = None
    actor: str | None = None
    text: str | None = Field(default=None, max_length=200)
    status: Annotated[tuple[RunStatus, ...], BeforeValidator(_listed)] = ()
    before: str | None = None
    limit: int = Field(default=50, ge=1, le=500)


class WorkspaceQuery(Given):
    """Which workspaces are listed, by name. ``text``: a part of it; ``after``: the last one of the page before."""

    text: str | None = Field(default=None, max_length=200)
    pool: str | None = None
    after: str | None = None
    limit: int = Field(default=200, ge=1, le=1000)


class HistoryQuery(Given):
    """Which time is shown: six hours up to now, where nothing is said."""

    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class DecisionQuery(Given):
    """Which decisions are listed, the newest first. ``before``: the id of the last one of the page before."""

    before: int | None = Field(default=None, ge=1, le=_LARGEST_ID)
    limit: int = Field(default=50, ge=1, le=200)


class LogQuery(Given):
    """Which lines of a run's log; ``follow``: go on until the run is over."""

    phase: str | None = None
    attempt: int | None = Field(default=None, ge=1)
    follow: bool = False


class NewRun(RunRequest):
    """A run that is asked for: what the Celery task of its ``kind`` takes."""

    kind: RunKind


class Reason(Given):
    """Why somebody decides so."""

    message: str | None = Field(default=None, max_length=500)


class Confirmation(Reason):
    """``attempt``: the one whose plan was looked at. No other plan is confirmed."""

    attempt: int = Field(ge=1)


class Cancellation(Reason):
    """``force``: kill Terraform instead of interrupting it."""

    force: bool = False


class Extension(Reason):
    """``seconds``: how much longer the plan may wait."""

    seconds: float = Field(default=DEFAULT_EXTENSION, gt=0)
