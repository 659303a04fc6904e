"""What a plan would do with each resource, for people: the gravest first, what is destroyed marked.

Every text comes from a configuration: each is shown as one line, without control characters.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from workers.cli.console import say
from workers.cli.outcome import changes, destruction
from workers.core.errors import UnknownRun
from workers.core.lifecycle import RunStatus
from workers.protocol.errors import Unavailable
from workers.protocol.names import one_line
from workers.protocol.plan_detail import AttributeChange, PlanDetail, ResourceChange
from workers.services.runs import views
from workers.services.runs.views import RunView

SHOWN = 40  # resources, where a person is about to decide
_SIGNS = {"delete": "-", "replace": "-/+", "forget": ".", "update": "~", "create": "+", "read": "<="}
_STYLES = {"delete": "red", "replace": "red", "forget": "yellow", "update": "yellow", "create": "green"}
_VERBS = {"delete": "destroy", "no-op": "keep"}


def look_at_plan(run: str, *, errors: bool) -> RunView | None:
    """Show what a confirmation would apply, and return its run. None where it can't be read here: the task decides."""
    from workers.cli.system import system  # noqa: PLC0415 - `terraslot show` starts quicker without it

    database = system().database
    try:
        found = views.one(database, run)
        if found.status is RunStatus.APPLY_PENDING:
            tell_plan(found, views.plan(database, found), at_most=SHOWN, errors=errors)
    except UnknownRun:
        return None
    except Unavailable as error:
        say(f"The plan can't be shown, so that it is confirmed unseen: {error}", style="yellow", errors=True)
        return None
    return found


def tell_plan(
    run: RunView, detail: PlanDetail | None, *, at_most: int, attributes: bool = False, errors: bool = False
) -> None:
    """Print the counts of a run's plan and its resources, ``at_most`` of them, also with their ``attributes``."""
    say(f"Plan of run {run.run_id}, workspace {run.workspace}: {changes(run)}.", style="bold", errors=errors)
    if warning := destruction(run):
        say(warning, style="bold red", errors=errors)
    if detail is None:
        say(_none(run), errors=errors)
        return
    for resource in detail.resources[:at_most]:
        say(_headline(resource), style=_STYLES.get(resource.action, ""), errors=errors)
        for line in _attributes(resource) if attributes else ():
            say(f"        {line}", errors=errors)
    for line in _rest(run, detail, at_most):
        say(line, errors=errors)


def _none(run: RunView) -> str:
    if run.status in (RunStatus.PENDING, RunStatus.PLANNING):
        return "It is not planned yet."
    if run.status is RunStatus.APPLYING and run.changes["add"] is None:
        return "What it does with each resource is being read."
    return (
        "No detail of it is on record: it never came to a plan, or the agent that made it is of a version that reports "
        f"none. `terraslot logs {run.run_id}` prints what Terraform printed."
    )


def _headline(resource: ResourceChange) -> str:
    sign = "+/-" if resource.create_first else _SIGNS.get(resource.action, "")
    verb = "changed outside of Terraform:" if resource.drift else _VERBS.get(resource.action, resource.action)
    notes = [
        *([f"for {', '.join(resource.replace_paths)}"] if resource.replace_paths else []),
        *([resource.reason.replace("_", " ")] if resource.reason else []),
        *([f"deposed {resource.deposed}"] if resource.deposed else []),
        *([f"moved from {resource.moved_from}"] if resource.moved_from else []),
        *(["imported"] if resource.imported else []),
    ]
    noted = f" ({'; '.join(notes)})" if notes else ""
    return one_line(f"  {sign:>3} {verb} {resource.address}{noted}")


def _attributes(resource: ResourceChange) -> Iterator[str]:
    for attribute in resource.attributes:
        forces = " (forces replacement)" if _forces(attribute.path, resource.replace_paths) else ""
        yield one_line(f"{attribute.path or 'everything'}: {_values(attribute)}{forces}")
    if resource.attributes_left_out:
        yield f"… and {resource.attributes_left_out} more: too much for the run's record"


def _forces(path: str, replaced: list[str]) -> bool:
    return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in replaced)


def _values(attribute: AttributeChange) -> str:
    before = _value(attribute, "before", attribute.before)
    after = "(known after apply)" if attribute.unknown else _value(attribute, "after", attribute.after)
    return f"{before} -> {after}"


def _value(attribute: AttributeChange, which: str, value: Any) -> str:
    if which in attribute.large:
        return "(too long for the run's record)"
    if attribute.sensitive and value is not None:
        return "(sensitive)"
    return json.dumps(value, ensure_ascii=False)


def _rest(run: RunView, detail: PlanDetail, at_most: int) -> Iterator[str]:
    if hidden := Counter(resource.action for resource in detail.resources[at_most:]):
        yield f"  … and {_counts(hidden)}: `terraslot show {run.run_id} --plan` shows all"
    if detail.left_out:
        yield f"  … and {_counts(detail.left_out)}, which are too many for the run's record: its log has them"
    if not (detail.resources or detail.left_out):
        yield "  no resource changes"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} to {_VERBS.get(action, action)}" for action, number in counts.items())
