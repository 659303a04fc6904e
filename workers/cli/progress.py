"""How far a phase has come, for people: in a few words beside a spinner, and as lines.

The addresses come from a configuration: each is shown as one line, without control characters.
"""

from collections.abc import Iterator
from datetime import datetime

from workers.cli.console import say
from workers.protocol.names import one_line
from workers.services.formatting import ago, duration
from workers.services.runs.progress import ProgressView, ResourceView

_SHOWN = 10  # resources
_DOING = {"create": "creating", "update": "updating", "delete": "destroying"}
_DONE = {"create": "created", "update": "updated", "delete": "destroyed"}
_STYLES = {"failed": "red", "unfinished": "yellow", "working": "cyan"}


def brief(progress: ProgressView, now: datetime) -> str:
    """Return it in a few words: ``12/40, 1 failed  aws_x.y creating 1m 3s and 2 more``."""
    working = [each for each in progress.resources if each.state == "working"]
    if not (progress.planned or working or progress.done or progress.failed):
        return f"(terraform {one_line(progress.step)} {ago(progress.since, now)})" if progress.step else ""
    longest = f"  {_resource(working[0], now)}" if working else ""
    more = f" and {progress.working - 1} more" if progress.working > 1 else ""
    return f"{_done(progress)}{_failed(progress)}{longest}{more}"


def summary(progress: ProgressView) -> str:
    """Return the counts in words."""
    if progress.live and not (progress.planned or progress.working or progress.done):
        return f"terraform {one_line(progress.step or '')}"
    under_way = f", {progress.working} {'under way' if progress.live else 'unfinished'}" if progress.working else ""
    return f"{_done(progress)} done{_failed(progress)}{under_way}"


def tell_progress(progress: ProgressView, now: datetime) -> None:
    """Print the first of the resources, a line each."""
    for resource in progress.resources[:_SHOWN]:
        say(f"  {_resource(resource, now)}", style=_STYLES.get(resource.state, ""))
    if left := len(progress.resources[_SHOWN:]) + progress.left_out:
        say(f"  … and {left} more")


def _done(progress: ProgressView) -> str:
    return f"{progress.done}/{progress.planned}" if progress.planned else str(progress.done)


def _failed(progress: ProgressView) -> str:
    return f", {progress.failed} failed" if progress.failed else ""


def _resource(resource: ResourceView, now: datetime) -> str:
    return one_line(" ".join((resource.address, *_words(resource, now))))


def _words(resource: ResourceView, now: datetime) -> Iterator[str]:
    action = resource.action
    doing = _DOING.get(action, action)
    match resource.state:
        case "working":
            yield f"{doing} {ago(resource.since, now)}"
        case "unfinished":
            yield f"{doing}, end not seen"
        case "failed":
            yield f"{doing} failed after {_took(resource)}"
        case "done":
            yield f"{_DONE.get(action, action)} in {_took(resource)}"


def _took(resource: ResourceView) -> str:
    return duration(resource.seconds or 0)
