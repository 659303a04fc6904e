"""``demo``: a system of its own runs one workspace from a cold start to its result, by the ways of every caller.

Each demo has a workspace of its own, so that there is something to plan, to confirm and to apply every time.
"""

import itertools
import os
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from workers import settings
from workers.cli.console import FAILURE, INTERRUPTED, complain, console, say
from workers.cli.follow import Follower, Progress, is_over, waits_or_is_over
from workers.cli.outcome import changes, exit_code, tell
from workers.cli.slots import slots_tables
from workers.cli.system import system
from workers.core.lifecycle import RunStatus
from workers.core.pools import PoolLimits
from workers.embedded.background import detach, down
from workers.embedded.state import Options
from workers.protocol import names
from workers.protocol.errors import InvalidRequest
from workers.protocol.settings import PREFIX
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.pools import views as pool_views
from workers.services.runs.views import RunView
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec

app = typer.Typer()

_POOL = PoolSpec(name="default", limits=PoolLimits(max_agents=2))
_KEPT = tuple(f"{PREFIX}{name}" for name in ("HOME", "TERRAFORM", "LOG_LEVEL"))
# Beside this file's package in a clone, inside it in a wheel.
_EXAMPLES = (Path(__file__).parents[2] / "examples" / "hello", Path(__file__).parent / "hello")
_WORKSPACE = "hello"
_ANSWER_SECONDS = 30


@app.command()
def demo() -> None:
    """Plan and apply examples/hello on an embedded system of its own, and end it."""
    source = _example()
    with _system_of_its_own():
        code = _tour(source)
    raise typer.Exit(code)


def _tour(source: Path) -> int:
    """Plan, confirm and apply the configuration in ``source``; return the demo's exit code."""
    workspace = _create_workspace(source)
    _show_slots()
    run_id = str(uuid.uuid4())
    _step(f'app.send_task("{names.PLAN_AND_APPLY}", kwargs={{"workspace": "{workspace}"}})')
    result = system().celery.send_task(names.PLAN_AND_APPLY, kwargs={"workspace": workspace}, task_id=run_id)
    with Progress() as progress:
        follower = Follower(system(), run_id, progress)
        follower.until_entered()
        planned = follower.until(waits_or_is_over)
        if planned.status is not RunStatus.APPLY_PENDING:
            tell(planned, as_json=False)
            return FAILURE
        _show_slots()
        _confirm(planned)
        applied = follower.until(is_over)
    if applied.status is not RunStatus.SUCCEEDED:
        tell(applied, as_json=False)
        return FAILURE
    return _compare(planned, applied, result.get(timeout=_ANSWER_SECONDS))


def _create_workspace(source: Path) -> str:
    """Create the first workspace of its name that no earlier demo has; return its name."""
    earlier = {spec.name for spec in workspaces.every(system())[0]}
    numbered = (f"{_WORKSPACE}-{number}" for number in itertools.count(2))
    name = next(name for name in itertools.chain([_WORKSPACE], numbered) if name not in earlier)
    _step(f"terraslot workspace create {name} --path {source}")
    workspaces.create(system(), WorkspaceSpec(name=name, source=DirectorySource(path=str(source))))
    return name


def _confirm(run: RunView) -> None:
    say(f"{changes(run).capitalize()}. Slot {run.slot} of {run.agent} keeps the plan until a person has decided.")
    _step(f'app.send_task("{names.CONFIRM}", args=["{run.run_id}"])')
    system().celery.send_task(names.CONFIRM, args=[run.run_id]).get(timeout=_ANSWER_SECONDS)


def _compare(planned: RunView, applied: RunView, result: dict[str, Any]) -> int:
    """Show what the caller's Celery result holds, and that the plan was applied where it was made."""
    _step("result.get()")
    tell(applied, as_json=False)
    if not (planned.agent, planned.slot) == (applied.agent, applied.slot) == (result["agent"], result["slot"]):
        complain(f"The plan was made by {planned.agent}, but applied by {applied.agent}.")
        return FAILURE
    say(f"{applied.agent} applied, in slot {applied.slot} and in the same directory, the plan that it had made.")
    return exit_code(applied)


def _show_slots() -> None:
    say("")
    console().print(slots_tables(pool_views.every(system())))
    say("")


def _step(command: str) -> None:
    say(f"> {command}", style="bold cyan")


@contextmanager
def _system_of_its_own() -> Iterator[None]:
    """Run a system under the demo's home; it ends when the block does, and if this process is killed, too."""
    home = _isolated_home()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    tied_to, held = os.pipe()
    try:
        say(f"Starting Valkey, the workers and beat under {home}, with no agent yet", style="bold")
        detach(Options(home=home, flower=False, pool=_POOL), _indented, tied_to)
        yield
    except KeyboardInterrupt:
        say("Interrupted.", style="yellow")
        raise typer.Exit(INTERRUPTED) from None
    finally:
        down(home, _indented)
        os.close(tied_to)
        os.close(held)
        say("Everything that the demo started has ended.")


def _isolated_home() -> Path:
    """Forget what this process's environment says of other systems; return the demo's home."""
    home = settings.home() / "demo"
    for name in [name for name in os.environ if name.startswith(PREFIX) and name not in _KEPT]:
        del os.environ[name]
    os.environ[f"{PREFIX}HOME"] = str(home)
    settings.settings.cache_clear()
    return home


def _example() -> Path:
    for directory in _EXAMPLES:
        with suppress(StopIteration):
            return next(directory.glob("*.tf")).parent
    raise InvalidRequest("This installation has no examples/hello: run the demo from a clone.")


def _indented(sentence: str) -> None:
    say(f"  {sentence}", style="dim")
