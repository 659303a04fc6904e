"""What ``apply -json`` says: shown as the lines that Terraform prints for people, and read for what its end tells.

Whatever a provisioner prints arrives inside of messages. So nothing that a configuration prints is taken for
Terraform's own word, and counts and outputs are read without a further command.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agent.hcl import rendered
from agent.progress import PhaseProgress
from agent.summary import SHORT, parsed

Sink = Callable[[bytes], None]

LONGEST = SHORT  # bytes of one message
_LEFT_OUT = b"\xe2\x80\xa6 a message of Terraform's that is too long was left out \xe2\x80\xa6\n"
# Terraform tells people nothing of the kind.
_NOT_SHOWN = frozenset(
    {"version", "planned_change", "resource_drift", "refresh_complete"}
    | {"provision_complete", "provision_errored", "apply_errored"}
)
_NO_MESSAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)


class ApplyMessages:
    """Takes the messages of one apply; ``progress`` counts what they tell of resources.

    ``outputs``: those of the message at its end, by name, as Terraform writes them; None where there was none, or one
    that is too long.
    """

    def __init__(self, progress: PhaseProgress | None = None) -> None:
        self._progress = progress or PhaseProgress(0)
        self._stdout: Sink
        self._stderr: Sink
        self.outputs: dict[str, Any] | None = None
        self._rest = bytearray()
        self._too_long = False

    def shown_by(self, stdout: Sink, stderr: Sink) -> Sink:
        """Pass on lines from here on, and errors; return where to feed the stream's next bytes."""
        self._stdout, self._stderr = stdout, stderr
        return self.feed

    def feed(self, data: bytes) -> None:
        """Take the stream's next bytes."""
        *whole, rest = data.split(b"\n")
        for part in whole:
            self._add(part)
            self._end_message()
        self._add(rest)

    def end(self) -> None:
        """Take the stream's end; an unfinished message is shown as it is."""
        if self._rest:
            self._end_message()

    def _add(self, part: bytes) -> None:
        self._too_long |= len(self._rest) + len(part) > LONGEST
        self._rest += part[: max(0, LONGEST - len(self._rest))]

    def _end_message(self) -> None:
        line, too_long = bytes(self._rest), self._too_long
        self._rest.clear()
        self._too_long = False
        if too_long:
            self._stdout(_LEFT_OUT)
            return
        try:
            self._take(parsed(line))
        except _NO_MESSAGE:  # of a wrapper around Terraform, say
            self._stdout(line + b"\n")

    def _take(self, message: Mapping[str, Any]) -> None:
        self._progress.take(message)
        match message["type"]:
            case "diagnostic" if message["diagnostic"]["severity"] == "error":
                self._stderr(_lines(_diagnostic(message["diagnostic"])))
            case "diagnostic":
                self._stdout(_lines(_diagnostic(message["diagnostic"])))
            case "outputs":
                self._stdout(_lines(_outputs(message["outputs"])))
                self.outputs = message["outputs"]
            case "change_summary":
                self._stdout(_lines(f"\n{message['@message']}"))
            case "provision_progress":
                hook = message["hook"]
                self._stdout(_lines(f"{hook['resource']['addr']} ({hook['provisioner']}): {hook['output']}"))
            case str(kind) if kind not in _NOT_SHOWN:
                self._stdout(_lines(_worded(message)))


def is_applied(line: bytes) -> bool:
    """Whether a line of ``apply -json`` is Terraform's word that all has been applied."""
    try:
        message = json.loads(line)
        return bool(message["type"] == "change_summary" and message["changes"]["operation"] == "apply")
    except _NO_MESSAGE:
        return False


def _lines(text: str) -> bytes:
    return text.encode(errors="replace") + b"\n"  # half of a surrogate pair is no text


def _worded(message: Mapping[str, Any]) -> str:
    text = str(message["@message"])
    if message.get("hook", {}).get("action") == "read":  # a data source: people are told that it is read
        return text.replace(": Refreshing...", ": Reading...").replace(": Refresh complete", ": Read complete")
    return text


def _outputs(outputs: Mapping[str, Any]) -> str:
    if not outputs:
        return ""
    values = (
        f"{name} = {'<sensitive>' if output.get('sensitive') else rendered(output['value'], output.get('type'))}"
        for name, output in outputs.items()
    )
    return "\n".join(("", "Outputs:", "", *values))


def _diagnostic(found: Mapping[str, Any]) -> str:
    parts = [f"\n{found['severity'].capitalize()}: {found['summary']}", "\n".join(_place(found)), found.get("detail")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _place(found: Mapping[str, Any]) -> Iterator[str]:
    if "address" in found:
        yield f"  with {found['address']}" + ("," if "range" in found else "")
    if "range" not in found:
        return
    snippet = found.get("snippet") or {}
    context = f", in {snippet['context']}" if snippet.get("context") else ""
    yield f"  on {found['range']['filename']} line {found['range']['start']['line']}{context}{':' if snippet else ''}"
    for number, line in enumerate(str(snippet.get("code") or "").splitlines(), snippet.get("start_line", 0)):
        yield f"{number:4}: {line}"
    if values := snippet.get("values"):
        yield f"    ├{'─' * 16}"
        yield from (f"    │ {value['traversal']} {value['statement']}" for value in values)
