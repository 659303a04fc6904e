"""``pool``: the pools, their limits, and why they are as big as they are."""

from __future__ import annotations

import typer
from rich.table import Table

from workers.cli import pool_changes, pool_work
from workers.cli.console import cell, console, plain, say, show_json, table
from workers.cli.options import AsJson, PoolName
from workers.cli.slots import slots_tables
from workers.cli.system import system
from workers.services.pools import views as pool_views
from workers.services.pools.views import PoolView

app = typer.Typer(help="Manage pools.", no_args_is_help=True)
app.add_typer(pool_changes.app)
app.add_typer(pool_work.app)


@app.command("list")
def list_pools(as_json: AsJson = False) -> None:
    """List all pools with their agents and slots."""
    pools = pool_views.every(system())
    if as_json:
        show_json([_brief(pool) for pool in pools])
        return
    made = table("POOL", "TYPE", "AGENTS", "MIN", "MAX", "RUNNING", "RESERVED", "IDLE", "WAITING", "STATUS")
    for pool in pools:
        counts, limits = pool.slots, pool.limits
        row = [pool.name, pool.type, len(pool.agents), limits["min_agents"], limits["max_agents"]]
        row += [counts.running, counts.reserved, counts.idle, sum(pool.pending.values()), pool.status_message]
        made.add_row(*map(cell, row))
    console().print(made)


@app.command()
def show(name: PoolName, as_json: AsJson = False) -> None:
    """Show a pool: limits, slots, last decisions."""
    pool = pool_views.one(system(), name)
    if as_json:
        show_json(pool)
        return
    console().print(slots_tables([pool]))
    say("\nLimits and timeouts", style="bold")
    for what, value in {**pool.limits, **pool.timeouts, "attempts": pool.attempts}.items():
        say(f"  {what} = {value:g}")
    if pool.adopting:
        again = f"terraslot pool adopt-deployment {name} {pool.deployment}"
        say(f"\nThe Deployment {pool.deployment} is being taken over. Should that have ended half-way: `{again}`.")
    elif pool.deployment:
        say(f"\nThe Deployment {pool.deployment} runs its pods.")
    for variable in pool.sensitive:
        say(f"  sensitive {variable}")
    say("\nLast decisions about its size", style="bold")
    console().print(_decisions(pool) if pool.decisions else cell(None))


def _brief(pool: PoolView) -> dict[str, object]:
    return {
        "name": pool.name,
        "type": pool.type,
        "limits": pool.limits,
        "agents": len(pool.agents),
        "slots": plain(pool.slots),
        "pending": pool.pending,
        "status_message": pool.status_message,
    }


def _decisions(pool: PoolView) -> Table:
    made = table("AT", "AGENTS", "REASON")
    for decision in pool.decisions:
        at = decision.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        made.add_row(cell(at), cell(f"{decision.current} -> {decision.desired}"), cell(decision.reason))
    return made
