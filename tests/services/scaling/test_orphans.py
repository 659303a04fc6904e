"""Pods whose pool was deleted, and pods whose pool has just been created."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from tests.services.conftest import ControlPlane, Pods
from workers.core.pods import Pod
from workers.services.pools import manage as pools
from workers.services.scaling import cycle
from workers.specs.pools import PoolSpec


def test_a_pool_that_is_created_during_the_sweep_keeps_its_pods(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphaned_pods = Pods.orphaned_pods

    def created_first(self: Pods, known: Collection[str]) -> list[Pod]:
        new = pools.ensure(control.system, PoolSpec(name="new"))
        self.create(new, "new-1")
        self.create(PoolSpec(name="deleted"), "deleted-1")
        return orphaned_pods(self, known)

    monkeypatch.setattr(Pods, "orphaned_pods", created_first)
    assert cycle.sweep(control.system) == 1
    assert control.pods.deleted == ["deleted-1"]
