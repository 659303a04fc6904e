"""What the control plane's Celery app changes of Celery."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import states
from celery.app.trace import build_tracer
from celery.exceptions import Ignore

from workers.app import build_app, direct_queue, message
from workers.settings import Settings


def traced(error: Exception, home: Path) -> Any:
    """Return what Celery's own tracer says of a task that raises this."""
    with build_app("test", [], [], Settings(home=home, redis_url="redis://nowhere.invalid")) as app:

        @app.task(name="raises", ignore_result=True, shared=False)
        def raises() -> None:
            raise error

        return build_tracer("raises", raises, app=app)("an-id", (), {}, {"id": "an-id", "delivery_info": {}})


def test_no_traceback_is_built_of_a_task_that_ends_with_ignore(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how every run is submitted; Celery spends a millisecond on what nobody reads."""
    built: list[object] = []
    monkeypatch.setattr(traceback, "format_exception", lambda *facts: built.append(facts) or [])
    answer = traced(Ignore(), tmp_path)
    assert built == []
    assert answer.info.state == states.IGNORED
    assert isinstance(answer.retval.exception.exc, Ignore)


def test_an_error_keeps_its_traceback(tmp_path: Path) -> None:
    answer = traced(RuntimeError("what went wrong"), tmp_path)
    assert answer.info.state == states.FAILURE
    assert "in raises" in answer.retval.traceback
    assert "what went wrong" in answer.retval.traceback


def test_a_message_that_is_sent_with_others_is_the_one_that_celery_would_send(redis_url: str) -> None:
    app = build_app("test", [], [], Settings(redis_url=redis_url, broker_url=""))
    shown, given = {"argsrepr": "()", "kwargsrepr": "{…}"}, {"order": {"variables": {"x": "ü"}, "none": None}}
    app.send_task("a.task", kwargs=given, queue=direct_queue("somewhere"), ignore_result=True, **shown)
    with redis.Redis.from_url(redis_url) as client:
        (celery,) = map(json.loads, client.lrange("somewhere", 0, -1))
    ours = json.loads(message(app, "a.task", given, "somewhere", **shown))
    for sent in (celery, ours):
        headers, properties = sent["headers"], sent["properties"]
        assert headers.pop("id") == headers.pop("root_id") == properties.pop("correlation_id")
        assert properties.pop("delivery_tag")
    # Whom nobody answers, and what is shown once more, no worker reads.
    for unread in ("reply_to", "argsrepr", "kwargsrepr"):
        celery["properties"].pop(unread), ours["properties"].pop(unread, None)
    assert ours == celery
