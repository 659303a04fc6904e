"""``python -m agent``: one agent, configured by its environment alone."""

import sys

from agent.supervisor import supervise


def _work() -> int:
    from agent.app import load  # noqa: PLC0415 - the supervisor stays small

    worker = load().Worker()
    worker.start()
    return worker.exitcode or 0


if __name__ == "__main__":
    sys.exit(supervise(_work))
