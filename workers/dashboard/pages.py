"""``/slots`` and ``/slots.json``: pools, their agents with three slots each, what waits, and what was decided.

A link in Flower's navigation bar leads to the page. Both are protected by Flower's authentication like Flower's own
pages, and say so where Redis or the database does not answer.
"""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flower.views import BaseHandler
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from tornado.escape import utf8, xhtml_escape
from tornado.web import TemplateModule, authenticated, url

from workers.dashboard.shared_pools import SharedPools
from workers.services.errors import user_message
from workers.services.formatting import ago
from workers.services.pools.views import PoolView

_TEMPLATE = str(Path(__file__).with_name("slots.html"))
_BAR = "navbar.html"
_END_OF_TABS = b"</ul>"


def pages(pools: SharedPools, prefix: str) -> list[Any]:
    """Return Tornado's rules for the pages below a prefix of the dashboard."""
    of = {"pools": pools}
    return [
        url(rf"{prefix}/slots", SlotsPage, of, name="slots"),
        url(rf"{prefix}/slots\.json", SlotsJson, of),
        url(rf"{prefix}/metrics", Metrics),
    ]


class _Looking(BaseHandler):  # type: ignore[misc]
    def initialize(self, pools: SharedPools) -> None:
        self._pools = pools

    async def pools(self) -> tuple[Sequence[PoolView], str | None]:
        """Return the pools, or what keeps them from being read; in a thread, so that Flower goes on meanwhile."""
        try:
            return await asyncio.to_thread(self._pools.every), None
        except Exception as error:
            words = user_message(error)
            if words is None:
                raise
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            return [], words


class SlotsPage(_Looking):
    """The page; it renews itself every two seconds."""

    @authenticated
    async def get(self) -> None:
        """Render the page."""
        pools, problem = await self.pools()
        self.render(_TEMPLATE, pools=pools, problem=problem, now=datetime.now(UTC), ago=ago)


class SlotsJson(_Looking):
    """The same for programs."""

    @authenticated
    async def get(self) -> None:
        """Write the document: ``pools``, and ``error`` where they can't be read."""
        pools, problem = await self.pools()
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.write(json.dumps({"pools": [asdict(pool) for pool in pools], "error": problem}, default=_text))


class Metrics(BaseHandler):  # type: ignore[misc]
    """Flower's ``/metrics``, written by a thread: it reads the pools, which may take as long as a server hangs."""

    async def get(self) -> None:
        """Write Prometheus's default registry, which is Flower's own and the pools'."""
        self.application.purge_offline_worker_metrics()
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.write(await asyncio.to_thread(generate_latest))


class Navigation(TemplateModule):
    """Renders Flower's templates as they are, and its navigation bar with one tab more.

    A bar that has no list any more is left as it is.
    """

    def render(self, path: str, **kwargs: Any) -> bytes:
        """Return the rendered template."""
        html = super().render(path, **kwargs)
        return html.replace(_END_OF_TABS, utf8(self._tab(**kwargs)) + _END_OF_TABS, 1) if path == _BAR else html

    def _tab(self, active_tab: str = "", **_: Any) -> str:
        active, current = (" active", ' aria-current="page"') if active_tab == "slots" else ("", "")
        url = xhtml_escape(self.handler.reverse_url("slots"))
        return f'<li class="nav-item"><a class="nav-link{active}" href="{url}"{current}>Slots</a></li>'


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
