"""``slots``: which run holds which slot of which agent."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from workers.cli.console import cell, clean, console, show_json, table
from workers.cli.options import AsJson, OfPool, Watch
from workers.cli.system import system
from workers.cli.watch import watch
from workers.protocol.leases import SLOTS_PER_AGENT, SlotState
from workers.services.formatting import ago, counted
from workers.services.pools import views as pool_views
from workers.services.pools.views import AgentView, PoolView, SlotView

app = typer.Typer()

AGENT_STYLES = {"available": "green", "draining": "yellow", "silent": "red"}
_SLOT_STYLES = {SlotState.IDLE: "dim", SlotState.RUNNING: "cyan", SlotState.RESERVED: "yellow"}


@app.command()
def slots(
    pool: OfPool = None,
    again: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Show every agent's three slots. As JSON with --watch: one document a line."""

    def look() -> Any:
        found = pools_named(pool)
        return [pool_views.slots(view) for view in found] if as_json else slots_tables(found)

    if again:
        watch(look, as_json=as_json)
    else:
        show_json(look()) if as_json else console().print(look())


def slots_tables(pools: Sequence[PoolView]) -> Group:
    """Return the slots of pools as tables."""
    if not pools:
        return Group(Text("No pools."))
    parts: list[Any] = []
    for pool in pools:
        parts += [_heading(pool), _agents(pool) if pool.agents else Text("  no agents", style="dim"), Text("")]
    return Group(*parts[:-1])


def pools_named(name: str | None) -> list[PoolView]:
    """Return this pool, or all. Raises :class:`UnknownPool`."""
    return pool_views.every(system()) if name is None else [pool_views.one(system(), name)]


def _heading(pool: PoolView) -> Text:
    counts, pending = pool.slots, sum(pool.pending.values())
    words = (
        f"{counted(len(pool.agents), 'agent')}; slots: {counts.running} running, {counts.reserved} reserved, "
        f"{counts.idle} idle; {counted(pending, 'run waits', 'runs wait')}"
    )
    heading = Text.assemble(("Pool ", "bold"), (clean(pool.name), "bold"), f": {words}")
    if pool.size_reason:
        heading.append(f"\nIts size: {clean(pool.size_reason)}", style="dim")
    return heading.append(f"\n{clean(pool.status_message)}", style="yellow") if pool.status_message else heading


def _agents(pool: PoolView) -> RenderableType:
    now = datetime.now(UTC)
    columns = ("AGENT", "STATE", "HEARTBEAT", *(f"SLOT {slot}" for slot in range(SLOTS_PER_AGENT)))
    return table(columns, [_agent(agent, now) for agent in pool.agents])


def _agent(agent: AgentView, now: datetime) -> list[Text]:
    facts = [
        cell(agent.name),
        cell(agent.state, AGENT_STYLES.get(agent.state, "")),
        cell(f"{ago(agent.heartbeat_at, now)} ago"),
    ]
    return facts + [_slot(slot, now) for slot in agent.slots]


def _slot(slot: SlotView, now: datetime) -> Text:
    if slot.run_id is None:
        return cell(slot.state, _SLOT_STYLES[slot.state])
    what = f"{slot.workspace or '?'} {slot.status or slot.state} {ago(slot.since, now)}"
    return cell(f"{what} [{slot.run_id[:8]}]", _SLOT_STYLES[slot.state])
