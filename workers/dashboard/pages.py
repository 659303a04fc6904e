"""The pages of runs, slots, pools and workspaces beside Flower's own: they show what the HTTP API answers.

Links in Flower's navigation bar lead to them. All are protected by Flower's authentication like Flower's own pages.
What a page loads comes from this server, and its Content-Security-Policy lets nothing else in.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flower.views import BaseHandler
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from tornado.escape import utf8, xhtml_escape
from tornado.web import StaticFileHandler, TemplateModule, authenticated, url

from workers.dashboard.shared_pools import SharedPools
from workers.services.errors import user_message
from workers.services.pools.views import PoolView

ASSETS = Path(__file__).with_name("web")
_TEMPLATE = str(Path(__file__).with_name("page.html"))
_BELOW = "terraslot"  # the path of the assets
_BAR = "navbar.html"
_END_OF_TABS = b"</ul>"
# Flower's style sheets have pictures in data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class View:
    """One kind of page: its ``tab`` in the navigation bar, its title, and the script that fills it."""

    tab: str
    title: str
    script: str


_VIEWS = {
    "/runs": View("runs", "Runs", "runs.js"),
    "/runs/([^/]+)": View("runs", "Run", "run.js"),
    "/workspaces": View("workspaces", "Workspaces", "workspaces.js"),
    "/workspaces/([^/]+)": View("workspaces", "Workspace", "workspace.js"),
    "/slots": View("slots", "Slots", "slots.js"),
    "/pools/([^/]+)": View("slots", "Pool", "pool.js"),
}
_TABS = {"runs": "Runs", "workspaces": "Workspaces", "slots": "Slots"}


def pages(pools: SharedPools, prefix: str) -> list[Any]:
    """Return Tornado's rules for the pages below a prefix of the dashboard."""
    return [
        *(url(f"{prefix}{path}", Page, {"view": view, "root": prefix}, name=path) for path, view in _VIEWS.items()),
        url(rf"{prefix}/{_BELOW}/(.+)", Asset, {"path": str(ASSETS)}),
        url(rf"{prefix}/slots\.json", SlotsJson, {"pools": pools}),
        url(rf"{prefix}/metrics", Metrics),
    ]


class Page(BaseHandler):  # type: ignore[misc]
    """The frame of a page; its script fills it."""

    def initialize(self, view: View, root: str) -> None:
        """Take what kind of page this is."""
        self._view = view
        self._root = root

    @authenticated
    async def get(self, name: str = "") -> None:
        """Render the frame of the page of a run, pool or workspace, or of all of them."""
        self.set_header("Content-Security-Policy", _POLICY)
        self.set_header("Referrer-Policy", "same-origin")
        self.set_header("Cache-Control", "no-store")
        view, assets = self._view, f"{self._root}/{_BELOW}"
        title = f"{view.title} {name}" if name else view.title
        self.render(_TEMPLATE, title=title, tab=view.tab, script=view.script, root=self._root, assets=assets, name=name)


class Asset(StaticFileHandler):
    """A script or style sheet: a browser asks whether its copy is still the one of this version."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - the hook's signature is the library's
        """Let copies be kept, and none be used unasked."""
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")


class SlotsJson(BaseHandler):  # type: ignore[misc]
    """The pools with their slots, for programs."""

    def initialize(self, pools: SharedPools) -> None:
        """Take what is written."""
        self._pools = pools

    @authenticated
    async def get(self) -> None:
        """Write the document: ``pools``, and ``error`` where they can't be read."""
        pools, problem = await self._read()
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(json.dumps({"pools": [asdict(pool) for pool in pools], "error": problem}, default=_text))

    async def _read(self) -> tuple[Sequence[PoolView], str | None]:
        """Return the pools, or what keeps them from being read; in a thread, so that Flower goes on meanwhile."""
        try:
            return await asyncio.to_thread(self._pools.every), None
        except Exception as error:
            words = user_message(error)
            if words is None:
                raise
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            return [], words


class Metrics(BaseHandler):  # type: ignore[misc]
    """Flower's ``/metrics``, written by a thread: it reads the pools, which may take as long as a server hangs."""

    async def get(self) -> None:
        """Write Prometheus's default registry, which is Flower's own and the pools'."""
        self.application.purge_offline_worker_metrics()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(await asyncio.to_thread(generate_latest))


class Navigation(TemplateModule):
    """Renders Flower's templates as they are, and its navigation bar with the tabs of these pages.

    A bar that has no list any more is left as it is.
    """

    def render(self, path: str, **kwargs: Any) -> bytes:
        """Return the rendered template."""
        html = super().render(path, **kwargs)
        return html.replace(_END_OF_TABS, utf8(self._tabs(**kwargs)) + _END_OF_TABS, 1) if path == _BAR else html

    def _tabs(self, active_tab: str = "", **_: Any) -> str:
        return "".join(self._tab(name, words, active_tab) for name, words in _TABS.items())

    def _tab(self, name: str, words: str, active_tab: str) -> str:
        active, current = (" active", ' aria-current="page"') if active_tab == name else ("", "")
        address = xhtml_escape(self.handler.reverse_url(f"/{name}"))
        return f'<li class="nav-item"><a class="nav-link{active}" href="{address}"{current}>{words}</a></li>'


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
