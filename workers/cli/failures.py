"""What is told of an error, and the exit code of its command."""

import typer
from pydantic import ValidationError
from typer.exceptions import TyperException

from workers.cli.console import FAILURE, MISUSE, complain, show_json
from workers.protocol.errors import InvalidRequest
from workers.protocol.validation import problems
from workers.services.errors import user_message


def tell(error: Exception, *, as_json: bool) -> int | None:
    """Print an error that people can do something about; return the exit code, None for a fault of this program."""
    words = _words(error)
    if as_json:
        show_json({"error": words or f"An unexpected {type(error).__name__}: stderr has more of it."})
    elif words is not None:
        complain(words)
    if words is None:
        return None
    return MISUSE if _is_misuse(error) else FAILURE


def reword(error: typer.BadParameter) -> None:
    """Let an error about an option's value say what is wrong in the words of this system, not in its library's."""
    if isinstance(error.__cause__, ValidationError):
        error.message = "; ".join(problems(error.__cause__, path=lambda _: ""))


def _is_misuse(error: Exception) -> bool:
    # The kinds of an invalid request name what is not there, or there already: another time the same is right.
    return isinstance(error, TyperException | ValidationError) or type(error) is InvalidRequest


def _words(error: Exception) -> str | None:
    if isinstance(error, typer.Abort):
        return "Aborted: nothing was changed."
    # With --json, the parser of the command line raises what it would have printed.
    return error.format_message() if isinstance(error, TyperException) else user_message(error)
