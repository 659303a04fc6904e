"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else, on stdout.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once; the run goes on.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or the beginning of it.")]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="A pool's name.")]
WorkspaceName = Annotated[str, typer.Argument(metavar="WORKSPACE", help="A workspace's name.")]
Priority = Annotated[int, typer.Option(min=-1000, max=1000, help="Runs with a higher priority start first.")]
Destroy = Annotated[bool, typer.Option("--destroy", help="Plan the removal of everything.")]
