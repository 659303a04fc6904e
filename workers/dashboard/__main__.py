"""``python -m workers.dashboard [--address=A] [--port=P] [...]``: the options, variables and file of Flower."""

import sys

from workers.core.errors import TerraslotError
from workers.dashboard.server import serve

if __name__ == "__main__":
    try:
        serve(sys.argv[1:])
    except TerraslotError as error:
        sys.exit(f"Error: {error}")
