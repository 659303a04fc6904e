"""Settings: where they come from, and the error for those that are invalid."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.protocol.errors import InvalidRequest
from workers.protocol.redis_address import parse
from workers.settings import settings


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("REDIS_URL", "BROKER_URL", "DATABASE_URL", "CYCLE_SECONDS"):
        monkeypatch.delenv(f"TERRASLOT_{name}", raising=False)
    monkeypatch.setenv("TERRASLOT_HOME", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


def test_the_environment_comes_before_the_running_systems_file_and_that_before_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "system.json").write_text(json.dumps({"redis_url": "redis://file/0", "cycle_seconds": 7, "other": 1}))
    monkeypatch.setenv("TERRASLOT_CYCLE_SECONDS", "9")
    found = settings()
    assert (found.redis_url, found.cycle_seconds, found.dispatch_seconds) == ("redis://file/0", 9, 10)
    assert found.broker == found.redis == parse("redis://file/0")
    assert found.database == f"sqlite:///{tmp_path}/terraslot.db"


def test_traces_go_to_the_endpoint_that_opentelemetry_names_for_them_unless_it_is_disabled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings().traces_to == ""
    for name, value in (("ENDPOINT", "http://all:4318"), ("TRACES_ENDPOINT", "http://traces:4318/v1/traces")):
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
        settings.cache_clear()
        assert settings().traces_to == value
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    settings.cache_clear()
    assert settings().traces_to == ""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("CYCLE_SECONDS", "soon", "TERRASLOT_CYCLE_SECONDS='soon': must be a number"),
        ("CYCLE_SECONDS", "-1", "TERRASLOT_CYCLE_SECONDS='-1': must be more than 0"),
        ("RUN_RETENTION_DAYS", "0", "TERRASLOT_RUN_RETENTION_DAYS='0': must be at least 1"),
        ("LOG_FORMAT", "xml", "TERRASLOT_LOG_FORMAT='xml'"),
        ("REDIS_URL", "amqp://user:hunter22@host", "TERRASLOT_REDIS_URL: must start with redis://"),
        ("DATABASE_URL", "mysql://user:hunter22@host/db", "TERRASLOT_DATABASE_URL: must start with sqlite:///"),
    ],
)
def test_an_invalid_value_is_named_and_a_secret_is_not_shown(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TERRASLOT_{name}", value)
    with pytest.raises(InvalidRequest, match="The environment is invalid") as caught:
        settings()
    assert words in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_a_postgresql_url_uses_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRASLOT_DATABASE_URL", "postgresql://u:p@h/db")
    assert settings().database == "postgresql+psycopg://u:p@h/db"
