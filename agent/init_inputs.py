"""What an ``init`` depends on: two runs with the same inputs would be given the same by it.

Of a configuration that is what names providers, modules and the backend: the bodies of resources, outputs and the like
are left out, so that most changes of a configuration ask for no new ``init``. Whatever is not understood counts as it
is. Terraform itself refuses to plan in a directory that lacks something, so that an oversight here costs time and no
more.
"""

import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.files import read_inside, read_regular
from agent.module import Module
from agent.terraform_environment import deciding_servers, named_configuration

LOCK_FILE = ".terraform.lock.hcl"
DATA = ".terraform"

_MOST = 10_000  # files; and in a module, providers and calls of modules
# Blocks at the beginning of a line whose body, up to the next line that begins with a bracket, is no input.
_BLOCK = re.compile(rb"(?:resource|data|ephemeral|output|variable|locals|moved|import|removed|check)\b")
_PROVIDER_OF = re.compile(rb'(?:resource|data|ephemeral)\s+"?([\w-]+)|\s*(provider\s*=.*)')
_LOCAL_MODULE = re.compile(rb'\bsource"?\s*[=:]\s*"(\.{1,2}/[^"]*)"')
_PATH = re.compile(r'\bpath\s*=\s*"([^"]+)"')


class Unknown(Exception):
    """It can't be told what an ``init`` of this configuration depends on."""


@dataclass(frozen=True, slots=True)
class InitInputs:
    """``digest``: of everything; ``origin``: of where providers come from; ``lock``: the source's lock file."""

    digest: str
    origin: str
    lock: bytes | None


def read(module: Module, command: Sequence[str], environment: Mapping[str, str], about: Sequence[Any]) -> InitInputs:
    """Return the inputs of a root module, before any ``init``; ``about``: what else it is given.

    Raises :class:`Unknown`.
    """
    if os.path.lexists(module.path / DATA):
        raise Unknown
    try:
        lock = _lock_file(module)
        origin = _digest((_cli_configuration(module.path, environment), deciding_servers(environment)))
        own = (str(module.path.relative_to(module.tree)), _configuration(module), lock, _program(command))
    except (OSError, ValueError) as error:
        raise Unknown from error
    return InitInputs(_digest((origin, own, sorted(environment.items()), *about)), origin, lock)


def _digest(found: Any) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _known(content: bytes | None) -> bytes:
    if content is None:
        raise Unknown  # it lies outside of the source
    return content


def _lock_file(module: Module) -> bytes | None:
    path = module.path / LOCK_FILE
    return _known(read_inside(path, module.tree)) if os.path.lexists(path) else None


def _program(command: Sequence[str]) -> list[Any]:
    return [(part, *_stamp(Path(part))) for part in command if os.path.isabs(part)]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _configuration(root: Module) -> list[Any]:
    """Return what a module and the local modules that it calls say about providers, modules and the backend."""
    found: dict[Path, Any] = {}
    known, pending, files = {root.path}, [root], 0
    while pending:
        module = pending.pop()
        if not module.is_inside or (files := files + len(module.files)) > _MOST:
            raise Unknown
        found[module.path], called = _of_module(module)
        pending += [Module(path, root.tree) for path in called - known]
        known |= called
    return sorted((str(path.relative_to(root.tree)), said) for path, said in found.items())


def _of_module(module: Module) -> tuple[Any, set[Path]]:
    """Return what one module says, and the directories of the local modules that it calls."""
    providers: set[bytes] = set()
    called: set[bytes] = set()
    rest = []
    for name in sorted(module.files):
        text = _known(module.content(name))
        called.update(_LOCAL_MODULE.findall(text))
        if said := _hashed([text] if name.endswith(".json") else _inputs(text, providers)):
            rest.append((name, said))
        if len(providers) + len(called) > _MOST:
            raise Unknown
    return (rest, sorted(providers)), {_called(module.path, source) for source in called}


def _hashed(lines: Iterable[bytes]) -> bytes:
    """Return a digest of lines, of which there may be millions; nothing where there is none."""
    digest = None
    for line in lines:
        digest = digest or hashlib.sha256()
        digest.update(line)
    return digest.digest() if digest else b""


def _called(directory: Path, source: bytes) -> Path:
    return Path(os.path.normpath(directory / os.fsdecode(source)))


def _inputs(text: bytes, providers: set[bytes]) -> Iterator[bytes]:
    """Yield the lines that are inputs; of blocks that are none, add what names a provider to ``providers``."""
    inside = False
    for line in io.BytesIO(text):
        opens = not inside and _BLOCK.match(line)
        if opens or inside:
            if found := _PROVIDER_OF.match(line):
                providers.add(found[1] or found[2])
            inside = not (line.startswith(b"}") or (opens and line.rstrip().endswith(b"}")))
        elif line.strip() and not line.startswith((b"#", b"//")):
            yield line


def _cli_configuration(module: Path, environment: Mapping[str, str]) -> list[Any]:
    """Return Terraform's own configuration, and what lies in the mirrors of providers that it names or implies.

    Raises ``OSError`` where a configuration is named and can't be read.
    """
    home = os.path.join(module, environment.get("HOME") or "/")
    named = named_configuration(environment, module)
    texts = [read_regular(named)] if named else []
    for path in _configurations(home):
        with suppress(OSError):
            texts.append(read_regular(path))
    named_mirrors = (
        os.path.expandvars(path) for text in texts for path in _PATH.findall(text.decode(errors="replace"))
    )
    mirrors = (os.path.join(module, path) for path in (*named_mirrors, *_implied_mirrors(home, environment)))
    return [texts, [_listed(mirror) for mirror in mirrors if os.path.isdir(mirror)]]


def _configurations(home: str) -> list[str]:
    more: list[str] = []
    with suppress(OSError):  # most homes have no such directory
        more = sorted(name for name in os.listdir(f"{home}/.terraform.d") if name.endswith((".tfrc", ".tfrc.json")))
    return [f"{home}/{name}" for name in (".terraformrc", ".tofurc", *(f".terraform.d/{name}" for name in more))]


def _implied_mirrors(home: str, environment: Mapping[str, str]) -> list[str]:
    shared = [environment.get("XDG_DATA_HOME") or f"{home}/.local/share"]
    shared += (environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    of_all = (f"{each}/{name}/plugins" for each in shared for name in ("terraform", "opentofu"))
    return ["terraform.d/plugins", f"{home}/.terraform.d/plugins", *of_all]


def _listed(mirror: str) -> list[Any]:
    found: list[Any] = []
    for directory, _, names in os.walk(mirror, followlinks=True):
        found += ((directory, name, *_stamp(Path(directory, name))) for name in names)
        if len(found) > _MOST:
            raise Unknown
    return sorted(found)
