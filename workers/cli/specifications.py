"""Files that describe pools or workspaces: YAML, of which JSON is a part; one, a list, or several documents.

Nothing of an invalid file is saved. Of a valid one each is saved by itself: an error of one leaves the others alone.
"""

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError

from workers.cli.console import FAILURE, complain, say, show_json
from workers.protocol.errors import InvalidRequest, TerraslotError
from workers.protocol.validation import problems
from workers.specs.pools import PoolSpec
from workers.specs.workspaces import WorkspaceSpec

FileOption = Annotated[Path, typer.Option("-f", "--file", metavar="FILE", help="YAML or JSON; - reads from stdin.")]

CheckOption = Annotated[bool, typer.Option("--check", help="Check the file, and save nothing of it.")]

Spec = TypeVar("Spec", PoolSpec, WorkspaceSpec)


def read(path: Path, kind: type[Spec]) -> list[Spec]:
    """Return what a file describes. Raises :class:`InvalidRequest` with a line for everything that is wrong."""
    where = "stdin" if str(path) == "-" else str(path)
    found, wrong = [], []
    for position, item in enumerate(_items(path, where), 1):
        try:
            found.append(kind.model_validate(item, extra="forbid"))
        except ValidationError as error:
            name = item.get("name") if isinstance(item, dict) else None
            which = name if isinstance(name, str) else f"number {position}"
            wrong += [f"{which}: {problem}" for problem in problems(error, values=True)]
    twice = [name for name, count in Counter(spec.name for spec in found).items() if count > 1]
    wrong += [f"{name}: it is described more than once" for name in twice]
    if wrong:
        raise InvalidRequest(f"{where} is invalid, and nothing of it was saved:\n" + "\n".join(wrong))
    return found


def apply_all(kind: str, specs: list[Spec], do: Callable[[Spec], tuple[str, str | None]], as_json: bool) -> None:
    """Save or check each, print the outcome and the status that ``do`` returns; exit code 1 if one was refused."""
    told: list[dict[str, str | None]] = []
    for spec in specs:
        try:
            outcome, status = do(spec)
        except TerraslotError as error:
            told.append({"name": spec.name, "outcome": "refused", "error": str(error)})
        else:
            told.append({"name": spec.name, "outcome": str(outcome), "status_message": status})
        if not as_json:
            _tell(kind, told[-1])
    if as_json:
        show_json(told)
    if any(each["outcome"] == "refused" for each in told):
        raise typer.Exit(FAILURE)


def _tell(kind: str, done: dict[str, str | None]) -> None:
    if done["outcome"] == "refused":
        complain(f"{kind} {done['name']}: {done['error']}")
        return
    say(f"{kind} {done['name']} {done['outcome']}")
    if done["status_message"]:
        say(f"  {done['status_message']}", style="yellow")


def _items(path: Path, where: str) -> list[Any]:
    import yaml  # noqa: PLC0415 - of the commands of workspaces and pools, few read a file

    try:
        text = sys.stdin.read() if where == "stdin" else path.read_text("utf-8")
        documents = list(yaml.safe_load_all(text))
    except UnicodeDecodeError:
        raise InvalidRequest(f"{where} is not text in UTF-8.") from None
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{where} is not YAML: {' '.join(str(error).split())}.") from None
    lists = [each if isinstance(each, list) else [each] for each in documents if each is not None]
    items = [item for each in lists for item in each]
    if not items:
        raise InvalidRequest(f"{where} describes nothing.")
    return items
