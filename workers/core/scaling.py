"""How many agents a pool should have: one pure decision from a handful of facts.

The utilisation of all slots, (running + reserved) / slots, mixes two kinds of slot and starves applies while plan-only
slots are free (F32). So each kind is looked at by itself, a starting pod counts as the slots that it is about to have
(F4, F5), and an agent is removed for its own idleness (F33).
"""

from dataclasses import dataclass
from enum import StrEnum

from workers.core.backoff import pause
from workers.core.pools import PoolLimits
from workers.protocol.leases import PLAN_ONLY_SLOTS, SLOTS_PER_AGENT

# From the requirements: above the first an agent is added, below the second one is removed.
HIGH_UTILISATION = 0.80
LOW_UTILISATION = 0.20
# Seconds. A kubelet restarts a failing container after 10 s, doubling up to 300 s, and begins anew after ten minutes
# without a failure. Pods that fail are created at the same pace.
FAILURE_WINDOW = 600.0
FIRST_BACK_OFF = 10.0
LONGEST_BACK_OFF = 300.0


class ScalingReason(StrEnum):
    """Why the desired number is what it is, in the order in which the rules apply."""

    ABOVE_MAXIMUM = "more agents than the maximum"
    BELOW_MINIMUM = "fewer agents than the minimum"
    BACKING_OFF = "pods failed to start lately: creation is held back"
    COLD_START = "runs wait and there is no agent"
    APPLIES_WAIT = "more applies wait than there are free apply slots"
    PLANS_WAIT = "more plans wait than there are free slots"
    HIGH_UTILISATION = "utilisation above 80 %"
    PROGRAM_MISSING = "runs wait for a program that no agent has, and new agents may have it"
    LOW_UTILISATION = "utilisation below 20 % and an agent idle long enough"
    IDLE_AGENT = "an agent was idle long enough and the others can do without it"
    OUTDATED = "an idle agent's pod was made from an earlier configuration"
    STEADY = "the agents fit the work"


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """What a decision knows of a pool. Times are seconds since the epoch.

    ``ready`` agents accept runs; ``starting`` pods have not registered yet and are within their start deadline.
    Draining and silent agents are in neither (F3). ``used`` counts running and reserved slots of ready agents.
    ``pending_*`` count only runs that a free slot would let start (F6). ``idle_since`` has one entry for each
    ready agent whose slots are all idle, ``failures`` one for each pod that failed or never registered lately.
    ``outdated`` counts those idle agents whose pod was made from an earlier configuration of the pool, ``updated``
    the ready agents whose pod was made from the current one. ``unmet`` counts runs that require a program which none of
    the ready agents has; they are in no ``pending_*``.
    """

    ready: int = 0
    starting: int = 0
    free_apply: int = 0
    free_plan_only: int = 0
    used: int = 0
    reserved: int = 0
    pending_plans: int = 0
    pending_applies: int = 0
    idle_since: tuple[float, ...] = ()
    failures: tuple[float, ...] = ()
    outdated: int = 0
    updated: int = 0
    unmet: int = 0

    @property
    def current(self) -> int:
        """Agents that are ready or starting."""
        return self.ready + self.starting


@dataclass(frozen=True, slots=True)
class Decision:
    """How many agents a pool should have, and why. ``refused`` says what keeps it from having more."""

    current: int
    desired: int
    reason: ScalingReason
    refused: str | None = None

    @property
    def changes(self) -> bool:
        """Whether anything is to be created or removed."""
        return self.desired != self.current

    @property
    def noteworthy(self) -> bool:
        """Whether it is worth storing: it changes something, or would if it could."""
        return self.changes or self.refused is not None


def decide(facts: PoolFacts, limits: PoolLimits, now: float) -> Decision:
    """Return how many agents the pool should have at ``now``, by the clock of the facts' times.

    It is never grown beyond ``limits.max_agents``, and never shrunk while applies wait.
    """
    if facts.current > limits.max_agents and not facts.pending_applies:
        return Decision(facts.current, limits.max_agents, ScalingReason.ABOVE_MAXIMUM)
    missing, reason = _shortage(facts, limits)
    if missing:
        return _grow(facts, limits, missing, reason, now)
    if facts.unmet and not facts.updated and not facts.starting and facts.current < limits.max_agents:
        return _grow(facts, limits, 1, ScalingReason.PROGRAM_MISSING, now)
    if facts.pending_applies:  # one of the idle agents is about to get it
        return Decision(facts.current, facts.current, ScalingReason.STEADY)
    if why := _removable(facts, limits, now):
        return Decision(facts.current, facts.current - 1, why)
    return _renew(facts, limits)


def back_off_until(failures: tuple[float, ...], now: float) -> float:
    """Return when the next pod may be created, 0.0 for at once.

    The wait after the newest failure is 10 s, doubled by each other of the last ten minutes, five minutes at most.
    """
    recent = [failed for failed in failures if now - failed < FAILURE_WINDOW]
    if not recent:
        return 0.0
    return max(recent) + pause(len(recent), first=FIRST_BACK_OFF, longest=LONGEST_BACK_OFF)


def _shortage(facts: PoolFacts, limits: PoolLimits) -> tuple[int, ScalingReason]:
    if facts.current < limits.min_agents:
        return limits.min_agents - facts.current, ScalingReason.BELOW_MINIMUM
    short_of_applies = facts.pending_applies - facts.free_apply - facts.starting
    # A slot 0 that no pending apply will take is free for a plan as well.
    spare_apply = max(0, facts.free_apply + facts.starting - facts.pending_applies)
    free_plans = spare_apply + facts.free_plan_only + facts.starting * len(PLAN_ONLY_SLOTS)
    short_of_plans = facts.pending_plans - free_plans
    # Of new agents, each slot 0 that an apply takes is none for a plan.
    agents_for_plans = -(-(short_of_plans + max(0, short_of_applies)) // SLOTS_PER_AGENT)
    if facts.current == 0 and facts.pending_applies + facts.pending_plans > 0:
        return min(limits.step, max(short_of_applies, agents_for_plans)), ScalingReason.COLD_START
    if short_of_applies > 0:
        return min(limits.step, max(short_of_applies, agents_for_plans)), ScalingReason.APPLIES_WAIT
    if short_of_plans > 0:
        return min(limits.step, agents_for_plans), ScalingReason.PLANS_WAIT
    if facts.current and facts.used / (facts.current * SLOTS_PER_AGENT) > HIGH_UTILISATION:
        return 1, ScalingReason.HIGH_UTILISATION
    return 0, ScalingReason.STEADY


def _grow(facts: PoolFacts, limits: PoolLimits, missing: int, reason: ScalingReason, now: float) -> Decision:
    if now < back_off_until(facts.failures, now):
        return Decision(facts.current, facts.current, ScalingReason.BACKING_OFF, reason.value)
    desired = min(facts.current + missing, limits.max_agents)
    if desired > facts.current:
        return Decision(facts.current, desired, reason)
    return Decision(facts.current, facts.current, reason, f"already at the maximum of {limits.max_agents}")


def _removable(facts: PoolFacts, limits: PoolLimits, now: float) -> ScalingReason | None:
    """Return why one idle agent may be removed without a replacement; None if it may not."""
    idle = any(now - since >= limits.idle_timeout for since in facts.idle_since)
    if facts.current <= limits.min_agents or facts.starting or not idle:
        return None
    if facts.used < LOW_UTILISATION * facts.ready * SLOTS_PER_AGENT:
        return ScalingReason.LOW_UTILISATION
    return ScalingReason.IDLE_AGENT if _others_suffice(facts) else None


def _renew(facts: PoolFacts, limits: PoolLimits) -> Decision:
    """Remove outdated pods one at a time, if need be below the minimum, which the next decision fills up.

    The first pod of the new configuration is created before any is removed, if there is room: pods that work are kept
    until one of the new configuration works.
    """
    if not facts.outdated or facts.starting or facts.failures:
        return Decision(facts.current, facts.current, ScalingReason.STEADY)
    step = -1 if facts.updated or facts.current == limits.max_agents else 1
    return Decision(facts.current, facts.current + step, ScalingReason.OUTDATED)


def _others_suffice(facts: PoolFacts) -> bool:
    """Whether, without one idle agent, the next apply finds a slot and utilisation stays below the high mark."""
    others = facts.ready - 1
    return others > 0 and facts.free_apply > 1 and facts.used <= HIGH_UTILISATION * others * SLOTS_PER_AGENT
