"""A link to the slots in Flower's navigation bar, on every page of Flower."""

from typing import Any

from tornado.escape import utf8, xhtml_escape
from tornado.web import TemplateModule

_BAR = "navbar.html"
_END_OF_TABS = b"</ul>"


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
