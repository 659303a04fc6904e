"""The servers that the chart brings for trials, as configured by it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from tests.chart.rendering import NAME, NAMESPACE, one, render
from tests.waiting import eventually
from workers.embedded.valkey import free_port, server_binary
from workers.settings import Settings


def test_valkey_starts_with_the_charts_configuration_behind_its_password(tmp_path: Path) -> None:
    objects = render()
    secret = one(objects, "Secret", f"{NAME}-valkey")["stringData"]
    password = urlsplit(secret["TERRASLOT_REDIS_URL"]).password
    (tmp_path / "password.conf").write_text(secret["password.conf"])
    configuration = one(objects, "ConfigMap", f"{NAME}-valkey")["data"]["valkey.conf"]
    file, port = tmp_path / "valkey.conf", free_port()
    file.write_text(configuration.replace("/etc/valkey/secret", str(tmp_path)).replace("/data", str(tmp_path)))

    server = subprocess.Popen(
        [server_binary(), file, "--port", str(port), "--bind", "127.0.0.1"], stdout=subprocess.DEVNULL
    )
    try:
        with redis.Redis(port=port, password=password, decode_responses=True) as client:
            eventually(lambda: _answers(client))
            assert client.config_get("maxmemory-policy", "appendonly") == {
                "maxmemory-policy": "noeviction",
                "appendonly": "yes",
            }
        with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    finally:
        server.kill()
        server.wait()


def test_the_urls_lead_to_the_services_from_every_namespace_and_are_taken_by_the_settings(tmp_path: Path) -> None:
    objects = render()
    urls = {
        f"{server}_url": one(objects, "Secret", f"{NAME}-{brought}")["stringData"][f"TERRASLOT_{server.upper()}_URL"]
        for server, brought in (("redis", "valkey"), ("database", "postgresql"))
    }
    settings = Settings(home=tmp_path, **urls)

    assert urlsplit(settings.redis_url).hostname == f"{NAME}-valkey.{NAMESPACE}.svc"
    assert urlsplit(settings.database).hostname == f"{NAME}-postgresql.{NAMESPACE}.svc"
    for brought in ("valkey", "postgresql"):
        service = one(objects, "Service", f"{NAME}-{brought}")
        pod = one(objects, "StatefulSet", f"{NAME}-{brought}")["spec"]["template"]
        assert service["metadata"]["namespace"] == NAMESPACE
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()


def test_their_data_outlives_their_pods() -> None:
    objects = render({"valkey": {"storage": {"className": "fast", "size": "9Gi"}}})

    for brought, size, storage_class in (("valkey", "9Gi", "fast"), ("postgresql", "4Gi", None)):
        stateful = one(objects, "StatefulSet", f"{NAME}-{brought}")["spec"]
        [claim] = stateful["volumeClaimTemplates"]
        mounts = stateful["template"]["spec"]["containers"][0]["volumeMounts"]
        assert claim["metadata"]["name"] in {mount["name"] for mount in mounts}
        assert claim["spec"]["resources"]["requests"]["storage"] == size
        assert claim["spec"].get("storageClassName") == storage_class


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
