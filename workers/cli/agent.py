"""``agent``: single agents, and whether runs are given to them."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from workers.cli.console import answer, say, show_json, show_table
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.protocol.leases import SlotState
from workers.services.formatting import ago, counted
from workers.services.pools import drain as draining
from workers.services.pools import views as pool_views
from workers.services.pools.views import AgentView

app = typer.Typer(help="Look at agents, drain them.", no_args_is_help=True)

AgentName = Annotated[str, typer.Argument(metavar="AGENT", help="An agent's name: its pod's.")]


@app.command("list")
def list_agents(as_json: AsJson = False) -> None:
    """List all agents of all pools."""
    found = [(pool.name, agent) for pool in pool_views.every(system()) for agent in pool.agents]
    if as_json:
        show_json([{"pool": pool, **asdict(agent)} for pool, agent in found])
    elif not found:
        say("No agents: pools create them when there are runs.")
    else:
        now = datetime.now(UTC)
        show_table(("AGENT", "POOL", "STATE", "HELD", "HEARTBEAT"), (_row(pool, agent, now) for pool, agent in found))


@app.command()
def drain(agent: AgentName, as_json: AsJson = False) -> None:
    """Give an agent no run any more. It finishes, and keeps, what it holds."""
    held = len(draining.drain_agent(system(), agent).leases)
    said = f"Agent {agent} drains; it holds {counted(held, 'slot')}."
    answer({"agent": agent, "draining": True, "held": held}, said, as_json=as_json)


@app.command()
def undrain(agent: AgentName, as_json: AsJson = False) -> None:
    """Give an agent runs again."""
    draining.undrain_agent(system(), agent)
    answer({"agent": agent, "draining": False}, f"Agent {agent} is given runs again.", as_json=as_json)


def _row(pool: str, agent: AgentView, now: datetime) -> tuple[object, ...]:
    held = sum(slot.state is not SlotState.IDLE for slot in agent.slots)
    return agent.name, pool, agent.state, held, f"{ago(agent.heartbeat_at, now)} ago"
