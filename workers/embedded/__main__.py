"""``python -m workers.embedded OPTIONS FD [FD]``: what ``terraslot up --detach`` leaves in the background."""

from __future__ import annotations

import sys

from workers.embedded.background import serve
from workers.embedded.options import Options

if __name__ == "__main__":
    serve(Options.model_validate_json(sys.argv[1]), *map(int, sys.argv[2:4]))
