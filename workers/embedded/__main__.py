"""``python -m workers.embedded OPTIONS [FD]``: what ``terraslot up --detach`` leaves in the background.

Each step is a line of stdout; what keeps the system from running is the last line, with the exit code :data:`REFUSED`.
"""

from __future__ import annotations

import sys

from workers.embedded.background import REFUSED
from workers.embedded.state import Options
from workers.embedded.supervisor import up
from workers.protocol.errors import TerraslotError

if __name__ == "__main__":
    try:
        up(Options.model_validate_json(sys.argv[1]), print, tied_to=int(sys.argv[2]) if len(sys.argv) > 2 else None)  # noqa: PLR2004
    except TerraslotError as error:
        print(error)  # noqa: T201 - this is its log
        sys.exit(REFUSED)
