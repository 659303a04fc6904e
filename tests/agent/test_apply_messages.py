"""The messages of an apply: people read what Terraform would have told them, and nothing printed is taken for them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.apply_messages import LONGEST, ApplyMessages, is_applied
from agent.execution import PhaseFailed
from tests.agent.conftest import Bench, Configuration, of_apply
from workers.protocol.messages import REPORT, Order

MakeOrder = Callable[..., Order]

VALUES = r"""
output "object" {
  value = { a = [1, "x\ny"], "b c" = toset(["x"]), n = null, e = [], f = {}, q = "\"q\" $${x} ä", t = true }
}
output "list" { value = tolist(["a", "b"]) }
output "map" { value = tomap({ a = { b = 1.5 } }) }
output "lines" { value = "two\nlines\n" }
output "secret" {
  value     = "hunter2"
  sensitive = true
}
"""
EVERYTHING = """
resource "terraform_data" "a" {
  input = 1
  provisioner "local-exec" { command = "echo out; printf 'no end'" }
}
data "terraform_remote_state" "it" {
  backend    = "local"
  config     = { path = "other.json" }
  depends_on = [terraform_data.a]
}
"""
OTHER = '{"version": 4, "serial": 1, "lineage": "x", "terraform_version": "1.5.0", "outputs": {}, "resources": []}'
FAILING = """
resource "terraform_data" "a" {
  input = 1
  lifecycle {
    postcondition {
      condition     = self.output == 2
      error_message = "two\\nlines"
    }
  }
}
resource "terraform_data" "b" {
  input = terraform_data.a.id
}
"""
PROVISIONER = """
resource "terraform_data" "a" {
  provisioner "local-exec" { command = "echo >&2 because; exit 3" }
}
"""


def environment() -> dict[str, str]:
    return {**os.environ, "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}


def applied(directory: Path, *flags: str) -> tuple[bytes, bytes]:
    """Return what an apply of a new state prints, to stdout and stderr."""
    for command in (["init"], ["plan", "-out=plan"], ["apply", *flags, "plan"]):
        argv = ["terraform", command[0], "-no-color", "-input=false", *command[1:]]
        done = subprocess.run(argv, cwd=directory, env=environment(), capture_output=True, check=False)
    (directory / "terraform.tfstate").unlink(missing_ok=True)
    return done.stdout, done.stderr


def read(stream: bytes) -> tuple[ApplyMessages, str, str]:
    """Return what messages tell, and what is shown of them: lines, and errors."""
    out, err = bytearray(), bytearray()
    messages = ApplyMessages()
    feed = messages.shown_by(out.extend, err.extend)
    for at in range(0, len(stream), 1000):
        feed(stream[at : at + 1000])
    messages.end()
    return messages, out.decode(), err.decode()


def alike(text: bytes | str) -> str:
    """Return a text without ids, and as Terraform's errors come: in any number of empty lines."""
    text = text.decode() if isinstance(text, bytes) else text
    return re.sub(r"\n\n+", "\n\n", re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", text)).strip()


@pytest.mark.parametrize("code", [EVERYTHING + VALUES, FAILING, PROVISIONER], ids=["everything", "failing", "command"])
def test_an_apply_reads_as_terraform_tells_it_to_people(configuration: Configuration, code: str) -> None:
    configuration.write(code).write(OTHER, "other.json")
    said, errors = applied(configuration.path)
    messages, shown, shown_errors = read(applied(configuration.path, "-json")[0])
    assert alike(shown) == alike(said)
    assert alike(shown_errors).split() == alike(errors).split()  # Terraform breaks long lines of errors
    assert bool(messages.outputs) is ("secret" in code)
    assert "hunter2" not in shown + json.dumps(messages.outputs)


def test_outputs_are_known_without_a_further_command(
    bench: Bench, make_order: MakeOrder, configuration: Configuration
) -> None:
    configuration.write(EVERYTHING + VALUES).write(OTHER, "other.json")
    order = make_order(configuration.source)
    bench.execute(order)
    apply = bench.execution(of_apply(order))
    commands, run = [], apply.run

    def counted(argv: Any, **options: Any) -> Any:
        commands.append(argv[1])
        return run(argv, **options)

    apply.run = counted  # type: ignore[method-assign]
    outputs = bench.execute(apply.order, apply).outputs
    assert commands == ["apply"]
    assert (outputs["list"], outputs["secret"]) == (["a", "b"], "(sensitive)")


FORGED = json.dumps({"type": "change_summary", "@message": "Apply complete!", "changes": {"operation": "apply"}})


def test_what_a_configuration_prints_is_never_terraforms_own_word(
    bench: Bench, make_order: MakeOrder, configuration: Configuration
) -> None:
    configuration.runs(f"printf '\\n%s\\n' '{FORGED}'; exit 3")
    order = make_order(configuration.source)
    bench.execute(order)
    with pytest.raises(PhaseFailed, match="exit status 3"):
        bench.execute(of_apply(order))
    (printed,) = (bench.work_dir / "runs/run-1/output").glob("lasting.out")
    assert "change_summary" in printed.read_text()
    assert not any(map(is_applied, printed.read_bytes().split(b"\n")))
    assert f"terraform_data.it (local-exec): {FORGED}" in bench.lines.texts


def test_outputs_that_are_too_long_for_a_message_are_asked_for(
    bench: Bench, make_order: MakeOrder, configuration: Configuration
) -> None:
    configuration.write(f'output "huge" {{ value = "{"x" * LONGEST}" }}\noutput "b" {{ value = 1 }}')
    order = make_order(configuration.source)
    bench.execute(order)
    assert bench.execute(of_apply(order)).outputs == {"b": 1}
    assert any("too long was left out" in text for text in bench.lines.texts)


@pytest.mark.parametrize(
    "line",
    [b"a wrapper's word", b"[]", b"{}", b'{"type": {}}', b'{"type": "diagnostic", "diagnostic": []}', b"[" * 100_000],
)
def test_what_is_no_message_is_shown_as_it_is(line: bytes) -> None:
    assert read(line + b"\n")[1].strip() in (line.decode(), "")
    assert not is_applied(line)


def test_a_forged_output_that_no_report_can_hold_is_reported_all_the_same(
    bench: Bench, make_order: MakeOrder, configuration: Configuration, tmp_path: Path
) -> None:
    """What a provisioner starts can write into the output of the Terraform that started it."""
    half = {"sensitive": False, "type": "string", "value": "\ud800"}
    forged = tmp_path / "forged"
    message = json.dumps({"type": "outputs", "outputs": {"x": half, "\udfff": half, "raw": {"value": "raw"}}}).encode()
    forged.write_bytes(message.replace(b'"value": "raw"', b'"value": "\xed\xa0\x80"') + b"\n")
    program = tmp_path / "terraform"
    program.write_text(f'#!/bin/sh\nterraform "$@" || exit\n[ "$1" != apply ] || cat {forged}\n')
    program.chmod(0o755)
    bench.command = (str(program),)
    configuration.write('resource "terraform_data" "it" {}\n')
    order = make_order(configuration.source)
    bench.execute(order)
    applied = bench.execute(of_apply(order))
    assert applied.outputs == {"x": "?", "?": "?", "raw": "\ufffd\ufffd\ufffd"}
    assert REPORT.validate_json(applied.model_dump_json()) == applied
