"""Names that processes share: queues, tasks; what may be a name at all, and which characters no shown text may have."""

import re
from typing import Annotated

from pydantic import StringConstraints

# Any Celery client that knows nothing but the broker's address sends here, so runs are taken from here.
SUBMIT_QUEUE = "celery"
CONTROL_QUEUE = "terraslot.control"
REQUEST_QUEUES = (SUBMIT_QUEUE, CONTROL_QUEUE)
# What asks a cluster, which may be slow to answer: never in front of what people ask for.
CLUSTER_QUEUE = "terraslot.cluster"
REPORTS_QUEUE = "terraslot.reports"

PLAN = "terraform.plan"
PLAN_AND_APPLY = "terraform.plan_and_apply"
CONFIRM = "terraform.confirm"
DISCARD = "terraform.discard"
CANCEL = "terraform.cancel"
EXTEND = "terraform.extend"
UNLOCK = "terraform.unlock"
STATE_PUSH = "terraform.state_push"
STATE_GIVE_UP = "terraform.state_give_up"

# The header of a task that says who asks.
ACTOR_HEADER = "terraslot_actor"
# The header of an order that says which attempt of its run it is for: agents of 0.1 would refuse a field.
ATTEMPT_HEADER = "terraslot_attempt"
# The header of a task, and of an order, that says which trace it belongs to: W3C's, as tracing libraries send it.
TRACE_HEADER = "traceparent"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

REVOKE = "terraslot.revoke"
DISPATCH = "terraslot.dispatch"
AUTO_APPLY = "terraslot.auto_apply"
CYCLE = "terraslot.cycle"
CYCLES = "terraslot.cycles"
SCALE = "terraslot.scale"
DISPATCHES = "terraslot.dispatches"
DELIVERIES = "terraslot.deliveries"
PROTECT = "terraslot.protect"
SWEEP = "terraslot.sweep"
FORGET = "terraslot.forget"
LOGS = "terraslot.logs"
STATES = "terraslot.states"
REPORT = "terraslot.report"

CLUSTER_TASKS = (CYCLE, CYCLES, SCALE, PROTECT, SWEEP)

EXECUTE_ORDER = "agent.execute"
CANCEL_ORDER = "agent.cancel"

# A name becomes a part of keys, queues, pods and paths: nothing in it may mean anything there.
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
AGENT = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
# For a character class of a regular expression: what a terminal would obey. Tabs and newlines are harmless; a text
# that is shown as one line excludes the newline, too.
CONTROLS = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1
    "\u2028\u2029"  # lines and paragraphs, to some
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of text around
)
_NOT_SHOWN = re.compile(f"[\n{CONTROLS}]")

Name = Annotated[str, StringConstraints(pattern=rf"^{NAME.pattern}$", max_length=63)]
AgentName = Annotated[str, StringConstraints(pattern=rf"^{AGENT.pattern}$")]
RunId = Annotated[str, StringConstraints(pattern=rf"^{RUN_ID.pattern}$")]


def one_line(text: str) -> str:
    """Return a text of unknown origin as one line that may be shown."""
    return _NOT_SHOWN.sub("\ufffd", text)


def trace_id(traceparent: str) -> str:
    """Return the id of the trace that a valid traceparent names, by which a log and traces find one another."""
    return traceparent[3:35]


def orders_queue(pool: str, agent: str) -> str:
    """Return the name of the queue on which one agent takes its orders."""
    return f"ts:{{{pool}}}:orders:{agent}"


def node_name(pool: str, agent: str) -> str:
    """Return the Celery node name of an agent, under which its worker runs."""
    return f"{pool}@{agent}"
