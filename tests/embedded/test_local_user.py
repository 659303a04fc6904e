"""A system that root starts, whose local agents run as another user, from ``up`` to an applied resource."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

USER = "nobody"
REPOSITORY = Path(__file__).parents[2]
_LIBRARIES = [path for path in sys.path if path.endswith("site-packages")]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start agents as another user")


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that every user can reach: pytest's own are this user's alone."""
    directory = Path(tempfile.mkdtemp(prefix="terraslot-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def run(argv: list[str], environment: Mapping[str, str], **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120, check=False, **options)


def installed(place: Path) -> tuple[str, dict[str, str]]:
    """Return a Python that every user can run, and its environment: this one's copy, where this one is root's alone."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TERRASLOT_", "TF_"))}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *_LIBRARIES]),
        "TERRASLOT_HOME": str(place / "home"),
    }
    probe = [sys.executable, "-c", "import redis"]
    try:
        subprocess.run(probe, user=USER, group="nogroup", extra_groups=[], cwd="/", check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        prefix, version = place / "python", f"python{sys.version_info.major}.{sys.version_info.minor}"
        left_out = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "idlelib", "config-*")
        shutil.copytree(Path(sys.base_prefix, "lib", version), prefix / "lib" / version, ignore=left_out)
        for library in Path(sys.base_prefix, "lib").glob("libpython*"):
            shutil.copy(library, prefix / "lib")
        (prefix / "bin").mkdir()
        program = shutil.copy(Path(sys.base_prefix, "bin", version), prefix / "bin")
        return program, environment | {"PYTHONHOME": str(prefix), "LD_LIBRARY_PATH": str(prefix / "lib")}
    return sys.executable, environment


def test_a_run_is_applied_by_another_user_who_can_not_read_the_systems_secrets(place):
    python, environment = installed(place)
    environment |= {"TERRASLOT_LOCAL_USER": USER}
    terraslot = [python, "-c", "from workers.cli.main import main; main()"]
    code = place / "code"
    code.mkdir(mode=0o755)
    (code / "main.tf").write_text(
        'resource "terraform_data" "me" {\n  provisioner "local-exec" {\n'
        f'    command = "id -un; cat {place}/home/encryption.key || echo refused"\n  }}\n}}\n'
    )
    up = run([*terraslot, "up", "--detach", "--no-flower"], environment)
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        made = run([*terraslot, "workspace", "create", "me", "--path", str(code)], environment)
        assert made.returncode == 0, made.stdout + made.stderr
        applied = run([*terraslot, "apply", "me", "--yes"], environment)
        assert applied.returncode == 0, applied.stdout + applied.stderr
        assert f"{USER}\n" in applied.stdout
        assert "refused" in applied.stdout
        state = place / "home/state/me/terraform.tfstate"
        assert state.owner() == USER
    finally:
        run([*terraslot, "down"], environment)
