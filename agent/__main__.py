"""``python -m agent``: one agent, configured by its environment alone."""

import sys

from agent.app import load

if __name__ == "__main__":
    worker = load().Worker()
    worker.start()
    sys.exit(worker.exitcode or 0)
