"""The entry point: commands are found by name and their modules imported when they are used.

Exit codes: 0 for success alone; 1 for an error, or a run that ended otherwise; 2 for a wrong usage or an invalid
value; 3 for a run that was left waiting for a confirmation; 130 after Ctrl-C. With --json, an error is the document
``{"error": …}`` on stdout.
"""

import gc
import sys
from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup

from workers.cli.completion import stand_in

# Each with its module and its line in the page of all commands, so that the page needs no module.
_SECTIONS = {
    "On this machine": {
        "demo": ("demo", "See everything at work, from a cold start to an apply."),
        "up": ("embedded", "Start Terraslot and all that it needs on this machine."),
        "down": ("embedded", "Stop what `terraslot up` started."),
        "doctor": ("doctor", "Check everything that Terraslot needs."),
    },
    "Runs": {
        "plan": ("runs", "Plan a workspace: show what an apply would change."),
        "apply": ("runs", "Plan a workspace, ask, and apply that very plan."),
        "confirm": ("runs", "Let the plan of a waiting run be applied."),
        "extend": ("runs", "Let the plan of a waiting run wait longer."),
        "discard": ("runs", "Refuse the plan of a waiting run."),
        "cancel": ("runs", "End a run."),
        "runs": ("history", "List the latest runs."),
        "show": ("history", "Show a run, and what happened to it."),
        "logs": ("runs", "Print what Terraform printed."),
        "state": ("state", "Decide about states that could not be saved."),
        "unlock": ("runs", "End the lock of a state whose holder is dead."),
    },
    "Where and for what": {
        "workspace": ("workspace", "Manage workspaces: what Terraform runs for."),
        "pool": ("pool", "Manage pools: where it runs."),
        "agent": ("agent", "Look at single agents, drain them."),
        "slots": ("slots", "Show every agent's three slots."),
        "top": ("top", "Watch pools: what runs where, what waits, and why."),
    },
    "Upkeep": {
        "migrate": ("doctor", "Bring the database's tables up to this version."),
        "token": ("token", "Manage tokens: what lets programs use the HTTP API."),
        "reencrypt": ("doctor", "Encrypt all secrets again with the newest key."),
    },
}
_MODULES = {name: module for section in _SECTIONS.values() for name, (module, _) in section.items()}
_GROUPS = ("workspace", "pool", "agent", "state", "token")
# Libraries load these, and many others with them, only because they are installed; no command needs that. To Python, a
# module that is None can't be imported.
_NOT_NEEDED = ("greenlet", "opentelemetry", "rich.pretty", "rich.traceback", "yaml")


class _Offer(NamedTuple):
    """What a shell offers for a word, as the library's own class, which it does not export."""

    value: str
    help: str


class Commands(TyperGroup):
    """The commands, each loaded when it is asked for; an error of any of them ends as a sentence."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        names: dict[str, Any] = dict.fromkeys(_MODULES)
        self.commands = names  # a wrong one is told which of them it resembles

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - the hook's signature is the library's
        """Write the page of all commands."""
        for title, commands in _SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, line) for name, (_, line) in commands.items()])

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None."""
        if cmd_name not in _MODULES:
            return None
        commands = _loaded(_MODULES[cmd_name])
        commands.rich_markup_mode = None  # its help as plain as the page of all commands
        group = typer.main.get_group(commands)
        if cmd_name in _GROUPS:
            group.name = cmd_name
            return group
        return group.get_command(ctx, cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that these words begin with, its name, and the rest of them."""
        if ctx.resilient_parsing and (found := stand_in(args, lambda: self._found(ctx, args))):
            return args[-1], found, []
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Return the commands that begin so, as the page of all commands has them."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        lines = (each for commands in _SECTIONS.values() for each in commands.items())
        return [_Offer(name, line) for name, (_, line) in lines if name.startswith(incomplete)]

    def _found(self, ctx: Any, words: list[str]) -> Any:
        command = self
        for word in words:
            command = command.get_command(ctx, word)
        return command

    def invoke(self, ctx: Any) -> Any:
        """Run a command; what is wrong with an option is said in the words of this system, not in its parser's."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            from workers.cli import failures  # noqa: PLC0415 - most commands meet no error

            failures.reword(error)
            raise

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command, and end this process. An error that people can do something about is told in a sentence."""
        given = args[0] if args else extra.get("args")
        as_json = "--json" in (sys.argv if given is None else given)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": not as_json})
        except Exception as error:
            from workers.cli import failures  # noqa: PLC0415 - most commands meet no error

            code = failures.tell(error, as_json=as_json)
            if code is None:
                raise
        sys.exit(code)


def _loaded(module: str) -> Any:
    """Return the commands of a module; it and what it imports are loaded as if what is not needed were not there."""
    kept_out = [name for name in _NOT_NEEDED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(kept_out))  # type: ignore[arg-type]
    try:
        return import_module(f"workers.cli.{module}").app
    finally:
        for name in kept_out:
            del sys.modules[name]


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
)


@app.callback()
def terraslot() -> None:
    """Run Terraform for many workspaces on pools of agents."""


def main() -> None:
    """Run the command line."""
    # Importing makes many objects and no garbage, but sets off its collection dozens of times.
    gc.set_threshold(250_000)
    try:
        app(prog_name="terraslot")
    finally:
        gc.freeze()  # what is left goes with its process: to take it apart before is a quarter of a short command
