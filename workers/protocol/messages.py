"""The messages: orders to agents, reports of agents.

Every message is validated where it arrives. A report counts only with the token of its lease, and one about an
agent only with the instance id that the agent chose when it registered.

Readers ignore fields that they do not know, and keep them in what they write back; writers leave out what is default.
So a new field with a default is no new version; see :mod:`workers.protocol.version`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from workers.protocol.kinds import FailureReason, Phase, RunKind
from workers.protocol.leases import CancelMode
from workers.protocol.names import AgentName, Name, RunId
from workers.protocol.plan_detail import PlanDetail
from workers.protocol.programs import NAMES, VERSION, Required
from workers.protocol.progress import Progress
from workers.protocol.run_options import OrderOptions
from workers.protocol.sources import Environment, Source, Tagged, Variables
from workers.protocol.states import DeadHolder, RescuedState, StateLock

MAX_ERROR = 16_000
MAX_OUTPUTS_BYTES = 64_000
LIVE_LOG_BYTES = 4 << 20

_Program = Annotated[str, Field(pattern=rf"^(?:{'|'.join(NAMES)}) {VERSION}$", max_length=100)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, validate_by_name=True, serialize_by_alias=True)

    def wire(self) -> dict[str, Any]:
        """Return the message as it is sent: JSON without what is default."""
        return self.model_dump(mode="json", exclude_defaults=True)


class Changes(_Message):
    """How many resources a plan adds, changes and destroys; a replacement counts as an add and a destroy."""

    add: int = Field(default=0, ge=0)
    change: int = Field(default=0, ge=0)
    destroy: int = Field(default=0, ge=0)


class Order(_Message):
    """One phase of one run, for the agent that holds its slot. Times are seconds.

    ``commit`` is set once a git ref has been resolved. ``state_path`` is where state is kept if the configuration
    names no remote backend; None where a pod has no lasting place for it. ``encrypted``: sensitive variables of the
    pool, the workspace and the run, for holders of the pool's payload key. ``options``: an agent of version 1 would
    ignore them, and is given no order that has any. ``terraform``: what the plan requires of its program; an apply has
    the program of its plan. Only an agent that has named such a program is given such an order. ``dead_holders``: for
    whose lock on the state a plan does not wait; left out for agents of version 1, which wait. ``auto_apply``: the
    apply of this plan needs nobody, and what the plan does may be told beside it; left out for agents of version 1.
    ``attempt`` of the run, and ``trace``, its traceparent: for logs; they come as headers of the message, which an
    agent of version 1 ignores.
    """

    run: RunId
    workspace: Name
    kind: RunKind
    phase: Phase
    slot: int = Field(ge=0, le=2)
    token: str = Field(min_length=16, max_length=128)
    source: Source
    commit: str | None = Field(default=None, pattern=r"^[0-9a-f]{40}(?:[0-9a-f]{24})?$")
    variables: Variables = {}
    environment: Environment = {}
    encrypted: str | None = Field(default=None, repr=False, alias="sealed")
    destroy: bool = False
    options: OrderOptions = OrderOptions()
    timeout: float = Field(gt=0)
    interrupt_grace: float = Field(gt=0)
    state_path: str | None = None
    terraform: Required | None = None
    dead_holders: tuple[DeadHolder, ...] = ()
    auto_apply: bool = False
    attempt: int | None = None
    trace: str | None = None


class CancelRequest(_Message):
    """The first message of a cancel; heartbeats repeat it until the phase has ended."""

    run: RunId
    token: str
    mode: CancelMode


class _RunReport(_Message):
    pool: Name
    agent: AgentName
    run: RunId
    token: str


class PhaseStarted(Tagged, _RunReport):
    """The token is redeemed and terraform is about to start. ``commit`` is the tree that is used, if it is git's.

    ``program``: which Terraform of which version that is, where it is known by then. ``locks_as``: the user and host
    that Terraform names in a lock that it takes, ``clock`` that host's time, in seconds since the epoch. Control planes
    of 0.1 refuse to read these. ``changes``, ``plan``: of an apply whose plan was reported without.
    """

    type: Literal["phase_started"] = "phase_started"
    phase: Phase
    commit: str | None = None
    program: _Program | None = None
    locks_as: str | None = Field(default=None, max_length=300)
    clock: float | None = None
    changes: Changes | None = None
    plan: PlanDetail | None = None


class PhaseFinished(Tagged, _RunReport):
    """A phase ended; its processes are known to be gone.

    ``outcome`` ``succeeded`` carries counts and outputs; ``failed`` carries a reason and Terraform's own error text,
    ``cancelled`` may carry what Terraform said about being interrupted. ``changed`` says whether the plan holds
    anything to apply, which may be outputs alone. Sensitive outputs are replaced before they get here. ``plan``: what
    becomes of each resource; ``program``: which Terraform of which version made or applied it. ``rescued``: the state
    that Terraform could not save. ``lock``: the one that kept it from the state. ``progress``: what an apply has done
    with each resource. ``detail_follows``: ``changes`` and ``plan`` come with the reports of the apply, where its order
    has ``auto_apply``. Agents of 0.1 tell none of these, and its control planes refuse to read them.
    """

    type: Literal["phase_finished"] = "phase_finished"
    phase: Phase
    outcome: Literal["succeeded", "failed", "cancelled"]
    changed: bool = False
    changes: Changes = Changes()
    outputs: dict[str, Any] = {}
    commit: str | None = None
    reason: FailureReason | None = None
    error: str | None = Field(default=None, max_length=MAX_ERROR)
    plan: PlanDetail | None = None
    program: _Program | None = None
    rescued: RescuedState | None = None
    lock: StateLock | None = None
    progress: Progress | None = None
    detail_follows: bool = False


class AgentRegistered(Tagged, _Message):
    """An agent entered the slot map: there may be room for runs that wait."""

    type: Literal["agent_registered"] = "agent_registered"
    pool: Name
    agent: AgentName


class AgentStopped(Tagged, _Message):
    """An agent leaves on its own account; none of its child processes lives any more."""

    type: Literal["agent_stopped"] = "agent_stopped"
    pool: Name
    agent: AgentName
    instance_id: str = Field(alias="incarnation")  # its name on the wire since 0.1


# What control planes of 0.1 would refuse a whole report for.
SINCE_0_2 = ("plan", "program", "rescued", "lock", "locks_as", "clock", "progress", "detail_follows")
Report = Annotated[PhaseStarted | PhaseFinished | AgentRegistered | AgentStopped, Field(discriminator="type")]
REPORT: TypeAdapter[Report] = TypeAdapter(Report)
