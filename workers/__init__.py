"""The control plane of Terraslot. ``celery -A workers`` finds the Celery app here."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Agents import a few of these modules: the app, and all that it needs, is loaded only when asked for.
    if name == "celery":
        from workers.app import app  # noqa: PLC0415

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
