"""``agent``: single agents, and whether runs are given to them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from workers.cli.console import cell, console, plain, say, show_json, table
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.protocol.leases import SlotState
from workers.services.formatting import ago, counted
from workers.services.pools import drain as draining
from workers.services.pools import views as pool_views

app = typer.Typer(help="Look at agents, drain them.", no_args_is_help=True)

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="An agent's name: its pod's.")]


@app.command("list")
def list_agents(as_json: AsJson = False) -> None:
    """List all agents of all pools."""
    found = [(pool.name, agent) for pool in pool_views.every(system()) for agent in pool.agents]
    if as_json:
        show_json([{"pool": pool, **plain(agent)} for pool, agent in found])
        return
    if not found:
        say("No agents: pools create them when there are runs.")
        return
    now = datetime.now(UTC)
    made = table("AGENT", "POOL", "STATE", "HELD", "HEARTBEAT")
    for pool, agent in found:
        held = sum(slot.state is not SlotState.IDLE for slot in agent.slots)
        made.add_row(*map(cell, (agent.name, pool, agent.state, held, f"{ago(agent.heartbeat_at, now)} ago")))
    console().print(made)


@app.command()
def drain(agent: AgentName, as_json: AsJson = False) -> None:
    """Give an agent no run any more. It finishes, and keeps, what it holds."""
    record = draining.drain_agent(system(), agent)
    if as_json:
        show_json({"agent": agent, "draining": True, "held": len(record.leases)})
    else:
        say(f"Agent {agent} drains; it holds {counted(len(record.leases), 'slot')}.")


@app.command()
def undrain(agent: AgentName, as_json: AsJson = False) -> None:
    """Give an agent runs again."""
    draining.undrain_agent(system(), agent)
    if as_json:
        show_json({"agent": agent, "draining": False})
    else:
        say(f"Agent {agent} is given runs again.")
