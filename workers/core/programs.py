"""Which programs the agents of a pool have, and what follows for a run that requires one."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from workers.protocol.leases import AgentRecord
from workers.protocol.programs import Program, listed, suitable
from workers.protocol.version import PROGRAMS_SINCE

_MOST = 200  # of a pool: an agent may have written anything, and dispatching reads them


@dataclass(frozen=True)
class PoolPrograms:
    """What the registered agents of a pool have or, where none is registered, what the last ones had.

    ``template``: the configuration of pods of which an agent was among them; None where there was none that tells.
    """

    programs: tuple[Program, ...] = ()
    template: str | None = None

    @classmethod
    def stored(cls, row: Any) -> Self:
        """Return what was stored, nothing for what can't be read: the next cycle stores it anew."""
        row = row if isinstance(row, dict) else {}
        words, template = row.get("programs"), row.get("template")
        found = (Program.of_word(str(word)) for word in words) if isinstance(words, list) else ()
        return cls(tuple(filter(None, found)), template if isinstance(template, str) else None)

    @property
    def row(self) -> dict[str, Any]:
        """How it is stored."""
        return {"programs": [program.word for program in self.programs], "template": self.template}

    def meeting(self, requirement: str) -> list[Program]:
        """Return the programs that meet a requirement."""
        return suitable(requirement, self.programs)

    def tell_of(self, template: str) -> bool:
        """Whether they tell what the agents of a configuration of pods have, those that are to come included."""
        return self.template is not None and self.template == template

    def with_those_of(self, agent: AgentRecord) -> Self:
        """Return it with what one agent has."""
        return type(self)(_each_once((*self.programs, *agent.programs)), self.template)


def programs_of(agents: Sequence[AgentRecord], outdated: Collection[str], template: str) -> PoolPrograms:
    """Return what the agents of a pool have.

    ``outdated``: the agents of another configuration than that of ``template``, which say nothing about it.
    """
    told = any(agent.protocol >= PROGRAMS_SINCE and agent.name not in outdated for agent in agents)
    every = (program for agent in agents for program in agent.programs)
    return PoolPrograms(_each_once(every), template if told else None)


def unmet(required: Iterable[str | None], agents: Sequence[AgentRecord]) -> set[str]:
    """Return which requirements none of the agents meets."""
    wanted = {each for each in required if each is not None}
    have = {program for agent in agents for program in agent.programs} if wanted else set()
    return {each for each in wanted if not suitable(each, have)}


def no_such_program(requirement: str, pool: str, programs: Sequence[Program]) -> str:
    """Say that no agent of a pool has what is required, and what they have."""
    have = f"they have {listed(programs)}" if programs else "they name no version"
    return f"No agent of the pool {pool!r} has {requirement}: {have}."


def _each_once(programs: Iterable[Program]) -> tuple[Program, ...]:
    return tuple(sorted(set(programs), key=lambda program: (program.name, program.version.order, program.word)))[:_MOST]
