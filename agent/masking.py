"""Sensitive variables: decrypted for the time of a phase, and masked wherever their values would show."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.settings import SECRET_DIR, PoolCredentials
from agent.summary import MASKED
from workers.protocol.encryption import Keyring
from workers.protocol.errors import InvalidRequest
from workers.protocol.messages import Order
from workers.protocol.sources import SensitiveVariables

# Shorter values are part of too many words: a log with every 1 and yes masked can't be read.
SHORTEST = 4
_GO = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})  # as Go writes JSON


class Mask:
    """Replaces values in text: each of them, each line of those with several, and how JSON would write them."""

    def __init__(self, values: Any = None) -> None:
        texts = {form for text in _texts(values) for form in _forms(text) if len(form) >= SHORTEST}
        self._pattern = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None
        self.longest = max(map(len, texts), default=0)

    def __call__(self, text: str) -> str:
        """Return the text with every value replaced."""
        return self._pattern.sub(MASKED, text) if self._pattern else text

    def tree(self, value: Any) -> Any:
        """Return a JSON value with every text in it masked."""
        match value:
            case str():
                return self(value)
            case list():
                return [self.tree(item) for item in value]
            case dict():
                return {self(key): self.tree(item) for key, item in value.items()}
        return value


class Hidden(Mask):
    """Shows nothing, where it is not known what is to be masked."""

    def __call__(self, text: str) -> str:
        """Return a text without what was in this one."""
        return MASKED if text else text

    def tree(self, value: Any) -> Any:  # noqa: ARG002 - as a mask's
        """Return a JSON value with nothing in it."""
        return {}


def decrypted(order: Order, secret_dir: Path | None) -> SensitiveVariables:
    """Decrypt an order's sensitive variables. Raises :class:`InvalidRequest` where the Secret has no key for it."""
    if order.encrypted is None:
        return SensitiveVariables()
    return SensitiveVariables.model_validate(payload_keyring(secret_dir).decrypt(order.encrypted))


def payload_keyring(secret_dir: Path | None) -> Keyring:
    """Return the keys of the pool's Secret. Raises :class:`InvalidRequest` where there is none."""
    if secret_dir is None:
        raise InvalidRequest(f"What only this pool may read can't be read: there is no {SECRET_DIR}.")
    return Keyring(PoolCredentials(secret_dir).read().payload_keys, "the pool's Secret")


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _texts(item)
        case list():
            for item in value:
                yield from _texts(item)
        case bool() | None:
            pass
        case _:
            yield str(value)


def _forms(text: str) -> Iterator[str]:
    for form in (text.strip(), *map(str.strip, text.splitlines())):
        yield form
        yield json.dumps(form)[1:-1]
        yield (written := json.dumps(form, ensure_ascii=False)[1:-1])
        yield written.translate(_GO)
