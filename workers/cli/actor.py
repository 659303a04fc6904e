"""Who uses the command line: ``TERRASLOT_ACTOR``, or the account that it runs under."""

import os
import pwd

from workers.core.approval import Actor
from workers.settings import settings


def actor() -> Actor:
    """Return who asks. Raises :class:`InvalidRequest` for a name that can't be one."""
    return Actor(settings().actor or _account())


def _account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container's user that nobody has named
        return f"uid {os.geteuid()}"
