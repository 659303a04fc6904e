"""A control plane with local pools only does without the Kubernetes client, and never loads it where it is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import sys
if {missing}:
    sys.modules["kubernetes"] = None
from workers.specs.pools import PoolSpec
from workers.services.system import system
import workers.tasks, workers.reports
assert system().pods(PoolSpec(name="default")).list("default") == []
assert [backend.orphaned_pods([]) for backend in system().backends.values()] == [[], []]
assert {missing} or "kubernetes" not in sys.modules
"""


@pytest.mark.parametrize("missing", [False, True], ids=["installed", "missing"])
def test_local_pools_do_not_ask_for_it(tmp_path: Path, missing: bool) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TERRASLOT_")}
    environment = inherited | {"TERRASLOT_HOME": str(tmp_path)}
    command = [sys.executable, "-c", ASK.format(missing=missing)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
