"""A local agent that dies beside an apply is started again; reports that a dead one kept are read, as data."""

import json
import os
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.waiting import eventually
from workers.cluster import pod_record
from workers.core.pods import PodPhase
from workers.specs.pools import PoolSpec

POOL = PoolSpec(name="default")
SYSTEM = {"TERRASLOT_REDIS_URL": "redis://127.0.0.1:1"}
# It writes down that it was started, as often as it was.
AGENT = """
import os, signal
from pathlib import Path
work = Path(os.environ["TERRASLOT_WORK_DIR"])
(work / "apply.json").write_text("{}")
with open(work / "starts", "a") as starts: starts.write(os.environ["TERRASLOT_AGENT"] + "\\n")
signal.pause()
"""
KEEPING = """
import json, os
from pathlib import Path
reports = Path(os.environ["TERRASLOT_WORK_DIR"]) / "reports"
PREPARE
"""


def only(pods):
    [pod] = pods.list("default")
    return pod


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def kill_agent(directory: Path) -> None:
    process = pod_record.read(directory).process
    process.send(SIGKILL)
    eventually(lambda: not process.alive)


@pytest.fixture
def directory(tmp_path) -> Path:
    return tmp_path / "home/pods/default/a1"


def test_an_agent_that_died_beside_its_apply_is_started_again_but_not_for_ever(local_pods, directory):
    """F40."""
    pods = local_pods(AGENT, environment=SYSTEM)
    pods.create(POOL, "a1")
    before = only(pods)
    for starts in range(1, 5):
        eventually(lambda starts=starts: written(directory / "work/starts") == starts * "a1\n")
        kill_agent(directory)
        last = only(pods)
        assert last.uid == before.uid
        assert (last.phase is PodPhase.RUNNING) is (starts < 4)
    assert only(pods).reason.startswith("killed by signal 9")


def test_who_has_no_environment_for_an_agent_starts_none_and_leaves_the_pod_as_it_is(local_pods, directory):
    pods, others = local_pods(AGENT, environment=SYSTEM), local_pods(AGENT)
    pods.create(POOL, "a1")
    eventually((directory / "work/starts").exists)
    kill_agent(directory)
    assert only(others).phase is PodPhase.RUNNING
    assert (directory / "work/starts").read_text() == "a1\n"
    pods.delete(only(others))
    assert pods.list("default") == []


@pytest.mark.parametrize(
    ("prepare", "left"),
    [
        ('reports.mkdir(); (reports / \'a.json\').write_text(\'{"report": {"run": 1}, "lease": {}}\')', [{"run": 1}]),
        ("reports.mkdir(); (reports / 'a.json').write_text('[' * 100_000)", []),
        ("reports.mkdir(); (reports / 'a.json').write_text('{\"report\": \"' + 300_000 * 'x' + '\"}')", []),
        ("reports.mkdir(); os.mkfifo(reports / 'a.json')", []),
        ("reports.mkdir(); (reports / 'a.json').symlink_to(OUTSIDE)", []),
        ("reports.symlink_to(Path(OUTSIDE).parent)", []),
        ("reports.mkdir(); (reports / 'a.json').mkdir()", []),
    ],
    ids=["report", "no JSON", "too long", "pipe", "link", "linked directory", "directory"],
)
def test_reports_that_a_dead_agent_kept_are_read_once_its_pod_is_dead(local_pods, directory, tmp_path, prepare, left):
    """F41: nothing else is read in their place."""
    outside = tmp_path / "outside" / "a.json"
    outside.parent.mkdir()
    outside.write_text('{"report": "of somebody else"}')
    pods = local_pods(KEEPING.replace("PREPARE", prepare).replace("OUTSIDE", repr(str(outside))))
    pods.create(POOL, "a1")
    eventually(lambda: only(pods).phase is PodPhase.SUCCEEDED)
    pods.delete(only(pods))
    assert pods.list("default") == []
    reports = pods.left_reports("default")
    assert [json.loads(report) for report in reports] == left
    assert list(pods.left_reports("default")) == []
    assert outside.exists()


def test_a_report_stays_until_it_was_taken(local_pods):
    prepare = "reports.mkdir(); (reports / 'a.json').write_text('{\"report\": {}}')"
    pods = local_pods(KEEPING.replace("PREPARE", prepare))
    pods.create(POOL, "a1")
    eventually(lambda: only(pods).phase is PodPhase.SUCCEEDED)
    assert next(pods.left_reports("default")) == b"{}"  # and its reader dies
    assert list(pods.left_reports("default")) == [b"{}"]
    pods.delete_secret(POOL)
    assert os.listdir(pods.home / "pods/default") == ["a1"]
