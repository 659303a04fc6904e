"""``demo``: a whole embedded system of its own, shown at work on examples/hello, and ended again."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import typer

from workers import settings
from workers.cli.console import say
from workers.cli.outcome import INTERRUPTED
from workers.core.pools import PoolLimits
from workers.embedded.background import detach, down
from workers.embedded.state import Options
from workers.protocol.errors import InvalidRequest
from workers.protocol.settings import PREFIX
from workers.specs.pools import PoolSpec

app = typer.Typer()

_POOL = PoolSpec(name="default", limits=PoolLimits(max_agents=2))
_KEPT = tuple(f"{PREFIX}{name}" for name in ("HOME", "TERRAFORM", "LOG_LEVEL"))
# Beside this file's package in a clone, inside it in a wheel.
_EXAMPLES = (Path(__file__).parents[2] / "examples" / "hello", Path(__file__).parent / "hello")


@app.command()
def demo() -> None:
    """Plan and apply examples/hello on an embedded system of its own, and end it."""
    source = _example()
    with _system_of_its_own():
        # Only now do the settings of this process name the system to talk to.
        from workers.cli.tour import tour  # noqa: PLC0415

        code = tour(source)
    raise typer.Exit(code)


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
