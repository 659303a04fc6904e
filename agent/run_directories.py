"""The directories of runs: ``WORK_DIR/runs/RUN``, made by a plan and kept as long as an apply may need it."""

import shutil
import uuid
from pathlib import Path


class RunDirectories:
    """All run directories of one agent, those of a previous process included."""

    def __init__(self, work_dir: Path) -> None:
        self._runs = work_dir / "runs"
        self._removed = work_dir / "removed"
        self._runs.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._removed, ignore_errors=True)
        self._removed.mkdir(mode=0o700)

    def path(self, run: str) -> Path:
        """Return a run's directory, whether or not it exists."""
        return self._runs / run

    def runs(self) -> set[str]:
        """Return the runs that have one."""
        return {path.name for path in self._runs.iterdir()}

    def set_aside(self, run: str) -> None:
        """Move a run's directory away in one step, so that no phase sees half of it; :meth:`empty` deletes it."""
        if self.path(run).exists():
            self.path(run).rename(self._removed / uuid.uuid4().hex)

    def empty(self) -> None:
        """Delete what was moved away."""
        for path in list(self._removed.iterdir()):
            shutil.rmtree(path, ignore_errors=True)
