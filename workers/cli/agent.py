"""``agent``: single agents, and whether runs are given to them."""

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer

from workers.cli.console import answer, is_interactive, say, show_json, show_table
from workers.cli.options import AsJson
from workers.cli.system import system
from workers.protocol.errors import InvalidRequest
from workers.protocol.leases import AgentRecord, SlotState
from workers.services.formatting import ago, counted
from workers.services.pools import drain as draining
from workers.services.pools import forget as forgetting
from workers.services.pools import views as pool_views
from workers.services.pools.views import AgentView

app = typer.Typer(help="Look at agents, drain them, forget those that are gone.", no_args_is_help=True)

_AGENT = typer.Argument(metavar="AGENT", help="An agent's name: its pod's.")
Node = Annotated[str | None, typer.Option(metavar="NODE", help="All agents whose pods run on this node instead.")]


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
def drain(agent: Annotated[str | None, _AGENT] = None, node: Node = None, as_json: AsJson = False) -> None:
    """Give an agent, or all on a node, no run any more. They finish, and keep, what they hold."""
    if agent := _agent_or(node, agent):
        record = draining.drain_agent(system(), agent)
        answer(_drained(record), _drains(record), as_json=as_json)
    elif node:
        records = draining.drain_node(system(), node)
        answer([_drained(each) for each in records], "\n".join(map(_drains, records)), as_json=as_json)


@app.command()
def undrain(agent: Annotated[str | None, _AGENT] = None, node: Node = None, as_json: AsJson = False) -> None:
    """Give an agent, or all on a node, runs again."""
    if agent := _agent_or(node, agent):
        draining.undrain_agent(system(), agent)
        answer({"agent": agent, "draining": False}, f"Agent {agent} is given runs again.", as_json=as_json)
    elif node:
        agents = draining.undrain_node(system(), node)
        said = f"Given runs again: {', '.join(agents)}."
        answer([{"agent": each, "draining": False} for each in agents], said, as_json=as_json)


@app.command()
def forget(
    agent: Annotated[str, _AGENT],
    *,
    node_is_gone: Annotated[
        bool, typer.Option("--node-is-gone", help="Its node is gone for good: nothing runs there any more.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give up a silent agent whose node is gone.

    Its plans are made anew. An apply that may have started fails as agent_lost.
    """
    if not node_is_gone:
        raise InvalidRequest(
            f"Say --node-is-gone to forget the agent {agent!r}: silence alone does not tell that Terraform has ended."
        )
    held = forgetting.held_runs(system(), agent)
    if not yes:
        if not is_interactive():
            raise InvalidRequest(f"Say --yes to forget the agent {agent!r}: there is nobody to ask.")
        for run in held:
            say(f"It holds the run {run.run_id} of workspace {run.workspace}, {run.status}.", errors=True)
        warning = "If its node lives, Terraform may go on there, beside what is started in its place."
        typer.confirm(f"{warning} Forget the agent {agent} and its pod?", abort=True, err=True)
    done = forgetting.forget_agent(system(), agent)
    stands = [f"  Run {run.run_id} is {run.status}{f' ({run.reason})' if run.reason else ''}." for run in done.runs]
    answer(done, "\n".join([f"Agent {agent} is forgotten.", *stands]), as_json=as_json)


def _agent_or(node: str | None, agent: str | None) -> str | None:
    if (agent is None) is (node is None):
        raise typer.BadParameter("Name an AGENT, or a node with --node.")
    return agent


def _drained(record: AgentRecord) -> dict[str, object]:
    return {"agent": record.name, "draining": True, "held": len(record.leases)}


def _drains(record: AgentRecord) -> str:
    return f"Agent {record.name} drains; it holds {counted(len(record.leases), 'slot')}."


def _row(pool: str, agent: AgentView, now: datetime) -> tuple[object, ...]:
    held = sum(slot.state is not SlotState.IDLE for slot in agent.slots)
    return agent.name, pool, agent.state, held, f"{ago(agent.heartbeat_at, now)} ago"
