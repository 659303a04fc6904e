"""A live system behind the dashboard: the whole embedded one, with Flower, and people and programs that ask it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser

from tests.dashboard.browser import Eyes, chromium
from tests.otlp import Collector, collector
from tests.waiting import eventually
from workers.app import build_app
from workers.embedded import state
from workers.protocol.sources import DirectorySource
from workers.services import workspaces
from workers.services.system import System, build
from workers.settings import Settings
from workers.specs.workspaces import WorkspaceSpec

PROGRAM = Path(sys.executable).with_name("terraslot")
COLLECTORS_KEY = "c0llect0rs-key"
PEOPLE = {"ada": "secret", "bob": "secret"}


@dataclass(frozen=True)
class Reply:
    """What the dashboard answered."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def problem(self) -> str:
        """What a problem document says; its status is the answer's."""
        assert self.headers["Content-Type"] == "application/problem+json", self
        assert self.json["status"] == self.status
        return str(self.json["detail"])


@dataclass(frozen=True)
class Client:
    """Somebody who asks the API of a dashboard."""

    port: int
    headers: dict[str, str]

    def person(self, name: str) -> Client:
        return self.with_headers(Authorization=f"Basic {b64encode(f'{name}:{PEOPLE[name]}'.encode()).decode()}")

    def token(self, token: str) -> Client:
        return self.with_headers(Authorization=f"Bearer {token}")

    def with_headers(self, **headers: str) -> Client:
        return replace(self, headers=self.headers | {name.replace("_", "-"): value for name, value in headers.items()})

    def get(self, path: str) -> Reply:
        return self.ask("GET", path)

    def post(self, path: str, **body: Any) -> Reply:
        return self.with_headers(Content_Type="application/json").ask("POST", path, json.dumps(body))

    def ask(self, method: str, path: str, body: str | bytes | None = None) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, f"/api/v1{path}", body, self.headers)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read().decode())
        finally:
            connection.close()


@dataclass(frozen=True)
class Live:
    """A running embedded system with Flower, whose people are those of :data:`PEOPLE`."""

    system: System
    home: Path
    port: int
    metrics: int

    @property
    def nobody(self) -> Client:
        return Client(self.port, {})

    @property
    def ada(self) -> Client:
        return self.nobody.person("ada")

    @property
    def bob(self) -> Client:
        return self.nobody.person("bob")

    def workspace(self, name: str, code: str = 'output "hello" { value = "world" }\n', **facts: Any) -> str:
        directory = self.home.parent / name
        directory.mkdir()
        (directory / "main.tf").write_text(code)
        workspaces.create(self.system, WorkspaceSpec(name=name, source=DirectorySource(path=str(directory)), **facts))
        return name

    def reaches(self, run_id: str, status: str) -> dict[str, Any]:
        """Wait until a run has a status; return it."""
        return eventually(lambda: (run := self.ada.get(f"/runs/{run_id}").json["run"])["status"] == status and run)


def three_free_ports() -> int:
    """Return a port that is free now with the two that follow: below those that a client's connections are given."""
    for first in range(20_000 + os.getpid() % 1_000 * 3, 32_000, 3):
        with suppress(OSError), ExitStack() as probes:
            for port in range(first, first + 3):
                probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError("no three ports in a row are free")


@pytest.fixture(scope="session")
def traced() -> Iterator[Collector]:
    """The collector of traces that the live system exports to."""
    with collector() as found:
        yield found


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, traced: Collector) -> Iterator[Live]:
    home = tmp_path_factory.mktemp("live") / "home"
    foreign = ("TERRASLOT_", "FLOWER_", "OTEL_", "TF_CLI_CONFIG_FILE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    people = ",".join(f"{name}:{password}" for name, password in PEOPLE.items())
    metrics = three_free_ports()
    environment = kept | {
        "TERRASLOT_HOME": str(home),
        "FLOWER_BASIC_AUTH": people,
        "TERRASLOT_METRICS_PORT": str(metrics),
        "TERRASLOT_LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": traced.endpoint,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={COLLECTORS_KEY}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
    }

    def terraslot(*command: str) -> None:
        done = subprocess.run(
            [PROGRAM, *command], env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr

    terraslot("up", "--detach")
    running = state.running(home)
    assert running is not None
    config = Settings(home=home, redis_url=running.redis_url, encryption_keys=(home / "encryption.key").read_text())
    system = build(config, build_app("live", [], [], config))
    yield Live(system, home, urlsplit(running.flower_url).port, metrics)
    system.database.dispose()
    system.celery.close()
    system.redis.close()
    terraslot("down", "--yes")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser of one file of tests: while it runs, its thread has an event loop, and no other can be run there."""
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def eyes(live: Live, browser: Browser) -> Eyes:
    return Eyes(browser, live.port)
