"""``pool list``, ``show``: the pools, their limits, and why they have as many agents as they have."""

import typer

from workers.cli.console import console, say, show_json, show_table
from workers.cli.options import AsJson, PoolName
from workers.cli.slots import slots_tables
from workers.cli.system import system
from workers.services.pools import views as pool_views
from workers.services.pools.views import PoolView

app = typer.Typer()


@app.command("list")
def list_pools(as_json: AsJson = False) -> None:
    """List all pools with their agents and slots."""
    pools = pool_views.every(system())
    if as_json:
        show_json([_brief(pool) for pool in pools])
        return
    columns = ("POOL", "TYPE", "AGENTS", "MIN", "MAX", "RUNNING", "RESERVED", "IDLE", "WAITING", "STATUS")
    show_table(columns, (_row(pool) for pool in pools))


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
        say(f"\nThe pool adopts the Deployment {pool.deployment}. If that stopped half-way, continue with `{again}`.")
    elif pool.deployment:
        say(f"\nThe Deployment {pool.deployment} runs its pods.")
    for variable in pool.sensitive:
        say(f"  sensitive {variable}")
    say("\nLast decisions about its size", style="bold")
    show_table(
        ("AT", "AGENTS", "REASON"),
        (
            (each.at.astimezone().strftime("%Y-%m-%d %H:%M:%S"), f"{each.current} -> {each.desired}", each.reason)
            for each in pool.decisions
        ),
    )


def _row(pool: PoolView) -> tuple[object, ...]:
    counts, limits, waiting = pool.slots, pool.limits, sum(pool.pending.values())
    sizes = len(pool.agents), limits["min_agents"], limits["max_agents"]
    return pool.name, pool.type, *sizes, counts.running, counts.reserved, counts.idle, waiting, pool.status_message


def _brief(pool: PoolView) -> dict[str, object]:
    return {
        "name": pool.name,
        "type": pool.type,
        "limits": pool.limits,
        "agents": len(pool.agents),
        "slots": pool.slots,
        "pending": pool.pending,
        "status_message": pool.status_message,
    }
