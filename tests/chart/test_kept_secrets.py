"""Passwords and keys that the chart made stay what they are, however often the release is upgraded."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from helm_python import Config

from tests.chart.rendering import NAME, NAMESPACE, RELEASE, Object, chart, of_kind, one, render
from workers.protocol.encryption import Keyring

_SECRETS = {"name": "secrets", "namespaced": True, "kind": "Secret", "verbs": ["get"]}
_DISCOVERY: dict[str, Object] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": [_SECRETS]},
}


@pytest.fixture
def cluster() -> Iterator[tuple[Config, dict[str, Object]]]:
    """A cluster that holds Secrets by name, and Helm as it sees that cluster."""
    stored: dict[str, Object] = {}

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = path.rpartition("/")[2]
            answer = _DISCOVERY.get(path) or stored.get(name)
            body = json.dumps(answer or {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})
            self.send_response(200 if answer else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Config(kubeconfig_content=_kubeconfig(server.server_port), namespace=NAMESPACE) as config:
            yield config, stored
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _kubeconfig(port: int) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "double", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "double", "user": {}}],
            "contexts": [{"name": "double", "context": {"cluster": "double", "user": "double"}}],
            "current-context": "double",
        }
    )


def _secrets(config: Config) -> dict[str, dict[str, str]]:
    """The content of each Secret of the release, as the API server would keep it."""
    files = config.render(chart(), {}, name=RELEASE, namespace=NAMESPACE)
    objects = [each for text in files.values() if "kind: Secret" in text for each in yaml.safe_load_all(text) if each]
    return {
        secret["metadata"]["name"]: secret.get("data", {})
        | {key: base64.b64encode(value.encode()).decode() for key, value in secret.get("stringData", {}).items()}
        for secret in of_kind(objects, "Secret")
    }


def test_what_the_first_installation_made_every_later_one_finds_again(
    cluster: tuple[Config, dict[str, Object]],
) -> None:
    config, stored = cluster

    made = _secrets(config)
    stored |= {
        name: {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}
        for name, data in made.items()
    }

    assert made.keys() == {f"{NAME}-encryption", f"{NAME}-valkey", f"{NAME}-postgresql"}
    assert _secrets(config) == made


def test_two_installations_have_nothing_in_common() -> None:
    first, second = ({str(secret) for secret in of_kind(render(), "Secret")} for _ in range(2))

    assert first.isdisjoint(second)


def test_the_key_that_is_made_encrypts_and_decrypts() -> None:
    encoded = one(render(), "Secret", f"{NAME}-encryption")["data"]["TERRASLOT_ENCRYPTION_KEYS"]
    keyring = Keyring([base64.b64decode(encoded).decode()], "the chart")

    assert keyring.decrypt(keyring.encrypt({"password": "secret"})) == {"password": "secret"}


def test_helm_does_not_delete_what_cannot_be_made_again() -> None:
    for secret in of_kind(render(), "Secret"):
        assert secret["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
