"""``top``: pools as they are now, live: which agent does what, what waits and why, and why there are as many agents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.text import Text

from workers.cli import completion
from workers.cli.console import clean, console, show_json
from workers.cli.options import AsJson
from workers.cli.outcome import STYLES
from workers.cli.slots import AGENT_STYLES, pools_named
from workers.cli.watch import in_place
from workers.protocol.kinds import RunKind
from workers.protocol.leases import SlotState
from workers.services.formatting import ago, counted
from workers.services.pools.views import AgentView, PoolView, SlotView
from workers.services.runs.views import RunView

app = typer.Typer()

_ENDLESS = 10**9  # lines, where a program reads
_RUN_WIDTH, _AGE_WIDTH, _STATUS_WIDTH = 8, 7, 13  # 59m 59s, apply_pending


@app.command()
def top(
    pool: Annotated[
        str | None,
        typer.Argument(metavar="POOL", help="A pool's name; all without it.", autocompletion=completion.pools),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Watch pools: what runs where, what waits and why, why there are as many agents. Ends with q or Ctrl-C.

    Without a terminal it is printed once.
    """
    if as_json:
        show_json(pools_named(pool))
    elif console().is_terminal:
        in_place(lambda: _page(pools_named(pool), console().height), screen=True)
    else:
        console().print(_page(pools_named(pool), _ENDLESS))


def _page(pools: Sequence[PoolView], height: int) -> Text:
    return Text("\n").join(page(pools, datetime.now(UTC), console().width, height))


def page(pools: Sequence[PoolView], now: datetime, width: int, height: int) -> list[Text]:
    """Return pools as at most ``height`` lines of at most ``width`` columns; what has no room is counted."""
    made = [_one_line(_summary(pools, now), width)]
    for number, pool in enumerate(pools):
        heading, left = _heading(pool, now, width), len(pools) - number
        room = (height - len(made)) // left - len(heading)
        if room < 1:
            hidden = f"… no room for {counted(left, 'more pool', 'more pools')}: `terraslot top POOL` shows one"
            return [*made[: height - 1], _one_line(Text(hidden, style="dim"), width)]
        made += heading + _body(pool, now, width, room)
    return made


def _summary(pools: Sequence[PoolView], now: datetime) -> Text:
    agents, slots = sum(len(pool.agents) for pool in pools), [pool.slots for pool in pools]
    running, reserved = sum(each.running for each in slots), sum(each.reserved for each in slots)
    waiting = sum(sum(pool.pending.values()) for pool in pools)
    return Text(
        f"{now.astimezone():%H:%M:%S}  {counted(len(pools), 'pool')}, {counted(agents, 'agent')}; slots: {running} "
        f"running, {reserved} reserved; {counted(waiting, 'run waits', 'runs wait')} for a slot",
        style="bold reverse",
    )


def _heading(pool: PoolView, now: datetime, width: int) -> list[Text]:
    """Say how large a pool is, and why."""
    counts, (least, most) = pool.slots, (pool.limits[name] for name in ("min_agents", "max_agents"))
    size = counted(len(pool.agents), "agent") if most is None else f"{len(pool.agents)} of {least} to {most} agents"
    slots = f"slots: {counts.running} running, {counts.reserved} reserved, {counts.idle} idle"
    made = [_one_line(Text.assemble((f"Pool {clean(pool.name)}", "bold"), f"  {size}; {slots}"), width)]
    if pool.size_reason:
        made += _wrapped(Text(f"its size: {clean(pool.size_reason)}"), width)
    if pool.status_message:
        made += _wrapped(Text(clean(pool.status_message), style="yellow"), width)
    changed = next((each for each in pool.decisions if each.current != each.desired), None)
    if changed:
        words = f"{changed.current} -> {changed.desired} agents {ago(changed.at, now)} ago: {clean(changed.reason)}"
        made += _wrapped(Text(words, style="dim"), width)
    return made


def _body(pool: PoolView, now: datetime, width: int, room: int) -> list[Text]:
    """Return the agents of a pool and what waits; where both need more room, what waits has a third of it."""
    agents, idle = _agents(pool, now, width), sum(_is_idle(agent) for agent in pool.agents)
    waiting = [_waiting(run, now, width) for run in pool.waiting]
    needed = sum(map(len, waiting)) + (sum(pool.pending.values()) > len(waiting))
    shown = _fitting(agents, len(pool.agents) - idle, "agent", room - min(needed, room // 3) - (idle > 0))
    if idle and len(shown) < room:
        shown.append(_one_line(Text(f"  {counted(idle, 'agent is', 'agents are')} idle", style="dim"), width))
    return shown + _fitting(waiting, sum(pool.pending.values()), "run", room - len(shown))


def _fitting(entries: Iterable[list[Text]], number: int, noun: str, room: int) -> list[Text]:
    """Return the first entries, as many as have room, and how many of all ``number`` are left out."""
    made: list[Text] = []
    shown = 0
    for entry in entries:
        says_more = shown + 1 < number
        if len(made) + len(entry) + says_more > room:
            break
        made += entry
        shown += 1
    if shown < number and len(made) < room:
        made.append(Text(f"  … {counted(number - shown, f'{noun} is', f'{noun}s are')} not shown", style="dim"))
    return made


def _is_idle(agent: AgentView) -> bool:
    return agent.state == "available" and all(slot.state is SlotState.IDLE for slot in agent.slots)


def _agents(pool: PoolView, now: datetime, width: int) -> Iterator[list[Text]]:
    """Yield by agent a line for each slot that is held, and one for what else is to be said of it."""
    longest = max((len(agent.name) for agent in pool.agents), default=0)
    return (list(_agent(agent, now, width, longest)) for agent in pool.agents if not _is_idle(agent))


def _agent(agent: AgentView, now: datetime, width: int, longest: int) -> Iterator[Text]:
    name = Text(f"  {clean(agent.name):{longest}}", style=AGENT_STYLES.get(agent.state, ""))
    held = [slot for slot in agent.slots if slot.state is not SlotState.IDLE]
    if agent.state != "available":
        silent = f", heard {ago(agent.heartbeat_at, now)} ago" if agent.state == "silent" else ""
        yield _one_line(Text.assemble(name, (f"  {agent.state}{silent}", AGENT_STYLES[agent.state])), width)
    for slot in held:
        yield _one_line(Text.assemble(name, f"  {slot.slot}  ", *_held(slot, now)), width)
        name = Text(" " * len(name))


def _held(slot: SlotView, now: datetime) -> Iterator[tuple[str, str]]:
    status = slot.status or slot.state
    yield f"{status:{_STATUS_WIDTH}} ", STYLES.get(slot.status, "") if slot.status else ""
    yield f"{ago(slot.since, now):{_AGE_WIDTH}} {(slot.run_id or '')[:_RUN_WIDTH]:{_RUN_WIDTH}} ", "dim"
    yield clean(slot.workspace or "?"), "bold"


def _waiting(run: RunView, now: datetime, width: int) -> list[Text]:
    kind = "plan" if run.kind is RunKind.PLAN else "apply"
    what = Text.assemble(
        "  waits  ",
        (f"{ago(run.created_at, now):{_AGE_WIDTH}} {run.run_id[:_RUN_WIDTH]:{_RUN_WIDTH}} ", "dim"),
        (clean(run.workspace), "bold"),
        f" {kind}",
    )
    return [
        _one_line(what, width),
        *_wrapped(Text(clean(run.waiting or "its turn has come"), style="yellow"), width, 4),
    ]


def _one_line(text: Text, width: int) -> Text:
    text.truncate(width, overflow="ellipsis")
    return text


def _wrapped(text: Text, width: int, indent: int = 2) -> list[Text]:
    return [Text.assemble(" " * indent, line) for line in text.wrap(console(), width - indent)]
