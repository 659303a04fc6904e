"""What a pod's container is: nothing at all, or a real process of this machine."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tests.kubernetes.double.objects import Object, Objects
from workers.cluster.processes import orphaned_groups


class Container(Protocol):
    def exit_code(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def last_lines(self) -> str: ...


@dataclass
class Nothing:
    """A container that does what a test says: it ends when told to, unless it is ``stubborn``."""

    stubborn: bool = False
    code: int | None = None

    def exit_code(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        if not self.stubborn:
            self.code = 0

    def kill(self) -> None:
        self.code = 137

    def last_lines(self) -> str:
        return ""


class Process:
    """A process in a session of its own, with what it starts."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], work: Path, log: Path) -> None:
        self._work, self._log = work, log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, cwd=work, stdout=output, stderr=output, start_new_session=True
            )

    def exit_code(self) -> int | None:
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def terminate(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        # The kernel ends all processes of a container with its first: the agent's worker here, too, and we the others.
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._kill_children()

    def _kill_children(self) -> None:
        for orphan in orphaned_groups(self._work / "children"):
            orphan.kill()

    def last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-5:])


@dataclass
class Processes:
    """Starts a command for each container, with the pod's own variables, Secrets and directories under ``home``.

    ``environment`` is what every process of this machine needs beside, or has to have otherwise than a container.
    """

    command: Sequence[str]
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def start(self, objects: Objects, pod: Object) -> Container:
        """Start a pod's agent; again in the same directories when its container is restarted."""
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        home = self.home / metadata["uid"]
        places = {mount["mountPath"]: home / mount["name"] for mount in container["volumeMounts"]}
        self.refresh(objects, pod)
        variables = {each["name"]: _value(each, pod) for each in container.get("env") or ()}
        moved = {name: str(places.get(value, value)) for name, value in variables.items()}
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TERRASLOT_")}
        work = home / "work"
        work.mkdir(parents=True, exist_ok=True)
        return Process(self.command, {**inherited, **moved, **self.environment}, work, home / "log")

    def refresh(self, objects: Objects, pod: Object) -> None:
        """Bring what a pod has mounted up to date, as a kubelet does every minute or two."""
        metadata = pod["metadata"]
        for volume in pod["spec"]["volumes"]:
            _fill(objects, metadata["namespace"], volume, self.home / metadata["uid"] / volume["name"])


def _value(variable: Object, pod: Object) -> str:
    if "value" in variable:
        return str(variable["value"])
    found: Any = pod
    for part in variable["valueFrom"]["fieldRef"]["fieldPath"].split("."):
        found = found[part]
    return str(found)


def _fill(objects: Objects, namespace: str, volume: Object, place: Path) -> None:
    place.mkdir(parents=True, exist_ok=True)
    if "secret" in volume:
        secret = objects.get("secrets", namespace, volume["secret"]["secretName"])
        for name, content in (secret.get("data") or {}).items():
            fresh = place / f".{name}"
            fresh.write_bytes(base64.b64decode(content))
            fresh.replace(place / name)
