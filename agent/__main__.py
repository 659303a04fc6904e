"""``python -m agent``: one agent, configured by its environment alone."""

from __future__ import annotations

import sys

from agent.app import load


def main() -> int:
    """Run the agent until it is told to stop, and return its exit code."""
    worker = load().Worker()
    worker.start()
    return int(worker.exitcode or 0)


if __name__ == "__main__":
    sys.exit(main())
