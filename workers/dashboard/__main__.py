"""``python -m workers.dashboard [--address=A] [--port=P] [...]``: the options, variables and file of Flower."""

from __future__ import annotations

import sys

from workers.protocol.errors import TerraslotError


def main() -> None:
    """Serve the dashboard; what keeps it from starting is one sentence."""
    try:
        # The Celery app reads the settings when it is loaded, and they may be invalid.
        from workers.dashboard.server import serve  # noqa: PLC0415

        serve(sys.argv[1:])
    except TerraslotError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
