"""What an ``init`` depends on: two runs with the same inputs would be given the same by it.

Of a configuration that is what names providers, modules and the backend: the bodies of resources, outputs and the like
are left out, so that most changes of a configuration ask for no new ``init``. Whatever is not understood counts as it
is. Terraform itself refuses to plan in a directory that lacks something, so that an oversight here costs time and no
more.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.files import is_inside, read_regular
from agent.source import configuration_files
from agent.terraform_environment import deciding_servers, named_configuration

LOCK_FILE = ".terraform.lock.hcl"
DATA = ".terraform"

_MOST_FILES = 10_000
# Blocks at the beginning of a line whose body, up to the next line that begins with a bracket, is no input.
_BLOCK = re.compile(rb"(?:resource|data|ephemeral|output|variable|locals|moved|import|removed|check)\b")
_PROVIDER_OF = re.compile(rb'(?:resource|data|ephemeral)\s+"?([\w-]+)|\s*(provider\s*=.*)')
_LOCAL_MODULE = re.compile(rb'\bsource"?\s*[=:]\s*"(\.{1,2}/[^"]*)"')
_PATH = re.compile(r'\bpath\s*=\s*"([^"]+)"')
_CONFIGS = (".terraformrc", ".tofurc", ".terraform.d/*.tfrc", ".terraform.d/*.tfrc.json")


class Unknown(Exception):
    """It can't be told what an ``init`` of this configuration depends on."""


@dataclass(frozen=True, slots=True)
class InitInputs:
    """``digest``: of everything; ``origin``: of where providers come from; ``lock``: the source's lock file."""

    digest: str
    origin: str
    lock: bytes | None


def read(
    module: Path, tree: Path, command: Sequence[str], environment: Mapping[str, str], about: Sequence[Any]
) -> InitInputs:
    """Return the inputs of a module in its source ``tree``, before any ``init``; ``about``: what else it is given.

    Raises :class:`Unknown`.
    """
    if os.path.lexists(module / DATA):
        raise Unknown
    try:
        lock = _inside(module / LOCK_FILE, tree) if os.path.lexists(module / LOCK_FILE) else None
        origin = _digest((_cli_configuration(module, environment), deciding_servers(environment)))
        own = (str(module.relative_to(tree)), _configuration(module, tree), lock, _program(command))
    except (OSError, ValueError) as error:
        raise Unknown from error
    return InitInputs(_digest((origin, own, sorted(environment.items()), *about)), origin, lock)


def _digest(found: Any) -> str:
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _inside(path: Path, tree: Path) -> bytes:
    if not is_inside(path, tree):
        raise Unknown
    return read_regular(path)


def _program(command: Sequence[str]) -> list[Any]:
    return [(part, *_stamp(Path(part))) for part in command if os.path.isabs(part)]


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def _configuration(module: Path, tree: Path) -> list[Any]:
    """Return what a module and the local modules that it calls say about providers, modules and the backend."""
    found: dict[Path, Any] = {}
    pending, files = [module], 0
    while pending:
        directory = pending.pop()
        texts = [(path.name, _inside(path, tree)) for path in configuration_files(directory)]
        files += len(texts)
        if files > _MOST_FILES or not is_inside(directory, tree):
            raise Unknown
        found[directory] = _of_module(texts)
        called = {_called(directory, path) for _, text in texts for path in _LOCAL_MODULE.findall(text)}
        pending += [each for each in called if each not in found and each not in pending]
    return sorted((str(directory.relative_to(tree)), said) for directory, said in found.items())


def _called(directory: Path, source: bytes) -> Path:
    return Path(os.path.normpath(directory / os.fsdecode(source)))


def _of_module(texts: Iterable[tuple[str, bytes]]) -> Any:
    providers: set[bytes] = set()
    rest = []
    for name, text in sorted(texts):
        if left := text if name.endswith(".json") else b"\n".join(_inputs(text, providers)):
            rest.append((name, left))
    return rest, sorted(providers)


def _inputs(text: bytes, providers: set[bytes]) -> Iterator[bytes]:
    """Yield the lines that are inputs; of blocks that are none, add what names a provider to ``providers``."""
    inside = False
    for line in text.split(b"\n"):
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
    home = module / (environment.get("HOME") or "/")
    named = named_configuration(environment, module)
    texts = [read_regular(named)] if named else []
    for path in (path for name in _CONFIGS for path in sorted(home.glob(name))):
        with suppress(OSError):
            texts.append(read_regular(path))
    shared = [environment.get("XDG_DATA_HOME") or str(home / ".local/share")]
    shared += (environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    implied = [module / "terraform.d/plugins", home / ".terraform.d/plugins"]
    implied += [module / each / name / "plugins" for each in shared for name in ("terraform", "opentofu")]
    found = [path for text in texts for path in _PATH.findall(text.decode(errors="replace"))]
    mirrors = [*(module / os.path.expandvars(path) for path in found), *implied]
    return [texts, [_listed(mirror) for mirror in mirrors if mirror.is_dir()]]


def _listed(mirror: Path) -> list[Any]:
    found: list[Any] = []
    for directory, _, names in os.walk(mirror, followlinks=True):
        found += ((directory, name, *_stamp(Path(directory, name))) for name in names)
        if len(found) > _MOST_FILES:
            raise Unknown
    return sorted(found)
