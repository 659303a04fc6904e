"""The entry point: commands are found by name and their modules imported when they are used.

Exit codes: 0 for success alone; 1 for an error, or a run that ended otherwise; 2 for a wrong usage; 3 for a run
that was left waiting for a confirmation; 130 after Ctrl-C.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

from workers.cli.console import complain
from workers.services.words import sentence

_COMMANDS = {
    "demo": "demo",
    "up": "embedded",
    "down": "embedded",
    "workspace": "workspace",
    "plan": "runs",
    "apply": "runs",
    "confirm": "decisions",
    "discard": "decisions",
    "cancel": "decisions",
    "runs": "history",
    "show": "history",
    "logs": "logs",
    "slots": "slots",
    "pool": "pool",
    "agent": "agent",
    "reseal": "reseal",
    "doctor": "doctor",
    "migrate": "migrate",
}
_GROUPS = ("workspace", "pool", "agent")


class Commands(TyperGroup):
    """The commands, each loaded when it is asked for; errors of all of them become one sentence."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - the hook's signature is the library's
        """Return the names, in the order in which help shows them."""
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None."""
        if cmd_name not in _COMMANDS:
            return None
        group = typer.main.get_group(import_module(f"workers.cli.{_COMMANDS[cmd_name]}").app)
        if cmd_name in _GROUPS:
            group.name = cmd_name
            return group
        return group.get_command(ctx, cmd_name)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command; an error that a person can do something about ends it with one sentence and exit code 1."""
        try:
            return super().main(*args, **extra)
        except Exception as error:
            words = sentence(error)
            if words is None:
                raise
        complain(words)
        sys.exit(1)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=True
)


@app.callback()
def terraslot() -> None:
    """Run Terraform for many workspaces on pools of agents."""


def main() -> None:
    """Run the command line."""
    app(prog_name="terraslot")
