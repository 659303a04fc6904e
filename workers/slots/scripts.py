"""The Lua verbs: read once, called by their digest, sent in full only to a server that does not know them yet."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from redis.exceptions import NoScriptError

_LUA = Path(__file__).parent / "lua"


class Client(Protocol):
    """What is asked of redis-py's client, whose own signature has no types."""

    def execute_command(self, *words: Any) -> Any:
        """Send a command and return the reply."""


class Script:
    """One verb. ``redis-py``'s own Script does the same, for 2 us more a call."""

    __slots__ = ("_digest", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()

    @classmethod
    def load(cls, *names: str) -> Self:
        """Read a verb from its file. Several files become one text, in this order: the shared part first."""
        return cls("".join((_LUA / f"{name}.lua").read_text("utf-8") for name in names))

    def __call__(self, client: Client, keys: Sequence[bytes], *arguments: str | float) -> Any:
        """Run the verb in one step and return the server's reply. Raises redis-py's errors."""
        try:
            return client.execute_command("EVALSHA", self._digest, len(keys), *keys, *arguments)
        except NoScriptError:  # the server is new, or was restarted
            return client.execute_command("EVAL", self._text, len(keys), *keys, *arguments)
