"""The backend against a cluster that misbehaves: every answer is taken for what it is, and no call lasts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kubernetes.conftest import pool
from tests.kubernetes.double.cluster import Double, kubeconfig
from workers.cluster.kubernetes import backend
from workers.cluster.kubernetes.api import Api
from workers.cluster.kubernetes.backend import AT_ONCE, KubernetesPods
from workers.core.errors import NotPermitted, PodRefused, QuotaExceeded
from workers.protocol.errors import InvalidRequest, Unavailable

POOL = pool()
Backends = Callable[..., KubernetesPods]


@pytest.fixture
def many(double: Double, pods: KubernetesPods, monkeypatch: pytest.MonkeyPatch) -> int:
    """Create more pods than two pages hold; return how many."""
    monkeypatch.setattr(backend, "PAGE", 5)
    assert pods.create_all(POOL, [f"default-{number}" for number in range(11)]) == {}
    double.server.requests.clear()
    return 11


class TestAList:
    def test_reads_every_page_and_asks_once_for_each(self, double: Double, pods: KubernetesPods, many: int) -> None:
        """F24."""
        assert len({pod.uid for pod in pods.list("default")}) == many
        assert double.server.count("list") == 3

    def test_whose_pages_expired_begins_anew(self, double: Double, pods: KubernetesPods, many: int) -> None:
        double.fail("list", first=double.objects.expire_pages, skip=1)
        assert len(pods.list("default")) == many
        assert double.server.count("list") == 2 + 3

    def test_whose_pages_expire_again_and_again_is_given_up(
        self, double: Double, pods: KubernetesPods, many: int
    ) -> None:
        assert many > 10
        for pages in (1, 2):
            double.fail("list", first=double.objects.expire_pages, skip=pages)
        with pytest.raises(Unavailable, match="continue parameter is too old"):
            pods.list("default")
        assert double.server.count("list") == 4

    def test_that_fails_on_its_last_page_is_no_list(self, double: Double, pods: KubernetesPods, many: int) -> None:
        """F24: what was not read is not gone."""
        assert many > 10
        double.fail("list", status=500, reason="InternalError", message="etcdserver: leader changed", skip=2)
        with pytest.raises(Unavailable, match="leader changed"):
            pods.list("default")

    def test_reads_what_is_true_and_not_what_a_cache_remembers(self, double: Double, pods: KubernetesPods) -> None:
        """F24: a pod that a cache has not heard of would look gone."""
        double.objects.freeze_cache()
        pods.create(POOL, "default-1")
        assert [pod.name for pod in pods.list("default")] == ["default-1"]
        assert pods.orphaned_pods([]) == []

    def test_of_orphaned_pods_is_one_request_however_many_pools_there_are(
        self, double: Double, pods: KubernetesPods
    ) -> None:
        pods.create(POOL, "default-1")
        double.server.requests.clear()
        assert len(pods.orphaned_pods([f"pool-{number:03}" for number in range(300)])) == 1
        assert double.server.count("list") == 1


class TestAServer:
    def test_that_hangs_is_given_up_after_the_time_limit_without_another_try(
        self, double: Double, backends: Backends
    ) -> None:
        pods = backends(double, read_seconds=0.2)
        double.fail("list", hang=True, times=10)
        with pytest.raises(Unavailable) as caught:
            pods.list("default")
        assert str(caught.value) == (
            f"The API server {double.server.url} did not answer when asked to list pods in the namespace terraslot: "
            "no answer came within 0.2 s. Check that it runs, and that this process can reach it."
        )
        assert double.server.count("list") == 1

    @pytest.mark.parametrize(
        ("server", "said"),
        [
            ("http://127.0.0.1:1", "it refused the connection. Check that it runs"),
            ("http://me:hunter2@no-such-host.invalid", "its name can't be resolved. Check the server's address"),
            ("https://127.0.0.1:{port}", "TLS failed (wrong version number). Check its address and certificate"),
        ],
    )
    def test_that_can_not_be_reached_is_named_with_what_to_do(
        self, double: Double, tmp_path: Path, server: str, said: str
    ) -> None:
        path = tmp_path / "config"
        path.write_text(kubeconfig(server.format(port=double.server.port), "token"))
        with pytest.raises(Unavailable) as caught:
            KubernetesPods(Api(str(path))).list("default")
        assert said in str(caught.value)
        assert not any(word in str(caught.value) for word in ("Pool", "Errno", "object at", "hunter2"))

    def test_that_cuts_the_connection_was_asked_once(self, double: Double, pods: KubernetesPods) -> None:
        double.fail("create", cut=True)
        with pytest.raises(Unavailable, match="did not answer when asked to create pods"):
            pods.create(POOL, "default-1")
        assert double.server.count("create") == 1

    @pytest.mark.parametrize(
        ("status", "body"),
        [(502, b"<html>bad gateway</html>"), (503, b""), (200, b"<html>a login page</html>"), (200, b"")],
    )
    def test_that_answers_nonsense_says_nothing_about_pods(
        self, double: Double, pods: KubernetesPods, status: int, body: bytes
    ) -> None:
        double.fail("list", status=status, body=body)
        with pytest.raises(Unavailable, match="list pods"):
            pods.list("default")

    def test_that_is_asked_too_much_says_so(self, double: Double, pods: KubernetesPods) -> None:
        double.fail("list", status=429, reason="TooManyRequests", message="please try again later")
        with pytest.raises(Unavailable, match="asked for too much"):
            pods.list("default")
        assert double.server.count("list") == 1

    def test_that_is_stopped_is_unavailable_and_used_again_when_it_is_back(
        self, double: Double, pods: KubernetesPods
    ) -> None:
        assert pods.list("default") == []
        double.server.stop()
        with pytest.raises(Unavailable, match=r"did not answer.*refused"):
            pods.list("default")
        double.server.start()
        assert pods.list("default") == []


class TestCreation:
    def test_whose_answer_was_lost_can_be_repeated(self, double: Double, pods: KubernetesPods) -> None:
        double.fail("create", cut=True, after=True)
        with pytest.raises(Unavailable):
            pods.create(POOL, "default-1")
        uid = double.pod("default-1")["metadata"]["uid"]
        pods.create(POOL, "default-1")
        assert double.pod("default-1")["metadata"]["uid"] == uid

    def test_of_many_is_parallel_and_bounded(self, double: Double, pods: KubernetesPods) -> None:
        assert pods.create_all(POOL, [f"default-{number}" for number in range(60)]) == {}
        assert len(double.pods()) == 60
        assert 1 < double.server.most_at_once <= AT_ONCE

    def test_of_many_stops_asking_when_one_is_refused(self, double: Double, pods: KubernetesPods) -> None:
        double.put("resourcequotas", "few", spec={"hard": {"pods": "3"}})
        failures = pods.create_all(POOL, [f"default-{number}" for number in range(100)])
        assert len(failures) == 97
        assert {type(error) for error in failures.values()} == {QuotaExceeded}
        assert double.server.count("create") <= 3 + AT_ONCE

    def test_of_none_asks_for_nothing(self, double: Double, pods: KubernetesPods) -> None:
        assert pods.create_all(POOL, []) == {}
        assert double.server.requests == []

    def test_that_a_policy_denies_is_told_in_its_words(self, double: Double, pods: KubernetesPods) -> None:
        said = 'admission webhook "policy.example" denied the request: no image from there'
        double.fail("create", status=403, reason="Forbidden", message=said)
        with pytest.raises(PodRefused, match="no image from there"):
            pods.create(POOL, "default-1")


class TestAConfigurationCheck:
    def test_finds_a_pull_secret_that_is_not_there(self, double: Double, pods: KubernetesPods) -> None:
        with pytest.raises(InvalidRequest, match=r"kubernetes\.image_pull_secrets: no Secret 'registry' in"):
            pods.check(pool(image_pull_secrets=["registry"]))
        double.put("secrets", "registry")
        pods.check(pool(image_pull_secrets=["registry"]))

    def test_does_not_need_to_see_secrets(self, double: Double, pods: KubernetesPods) -> None:
        double.fail("get", "secrets", status=403, reason="Forbidden", message="cannot get resource")
        pods.check(pool(image_pull_secrets=["registry"]))

    def test_leaves_no_pod(self, double: Double, pods: KubernetesPods) -> None:
        pods.check(POOL)
        assert double.pods() == []


class TestAConnection:
    def test_by_an_unreachable_server_is_unavailable(self, tmp_path: Path) -> None:
        path = tmp_path / "config"
        path.write_text(kubeconfig("http://127.0.0.1:1", "token"))
        with pytest.raises(Unavailable, match="did not answer"):
            KubernetesPods(Api(str(path))).list("default")

    @pytest.mark.parametrize("text", ["", "{", "a: b", "apiVersion: v1\nkind: Config\ncurrent-context: none\n"])
    def test_by_an_invalid_kubeconfig_names_the_file(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "config"
        path.write_text(text)
        with pytest.raises(Unavailable, match=rf"kubeconfig {path} can't be used: .*TERRASLOT_KUBECONFIG"):
            KubernetesPods(Api(str(path))).list("default")

    def test_by_a_kubeconfig_that_is_not_there_names_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(Unavailable, match=f"{tmp_path / 'none'} can't be used"):
            KubernetesPods(Api(str(tmp_path / "none"))).list("default")

    def test_is_tried_anew_once_the_kubeconfig_is_right(self, double: Double, tmp_path: Path) -> None:
        pods = KubernetesPods(Api(str(tmp_path / "config")))
        with pytest.raises(Unavailable):
            pods.list("default")
        double.write_kubeconfig(tmp_path / "config")
        assert pods.list("default") == []
        pods.close()

    def test_to_no_cluster_at_all_says_what_to_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        with pytest.raises(Unavailable, match="set TERRASLOT_KUBECONFIG"):
            KubernetesPods(Api()).list("default")

    def test_without_the_client_names_the_extra_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kubernetes", None)
        pods = KubernetesPods(Api("/somewhere"))
        with pytest.raises(InvalidRequest, match=r"install terraslot\[kubernetes\]"):
            pods.list("default")

    def test_is_not_looked_for_where_nothing_says_that_there_is_a_cluster(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "kubernetes", None)
        assert KubernetesPods(Api()).orphaned_pods([]) == []

    def test_with_an_unknown_token_is_not_permitted(self, double: Double, backends: Backends) -> None:
        with pytest.raises(NotPermitted, match="its credentials are not valid"):
            backends(double, token="stranger").list("default")
