"""The documentation says what the program does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import AliasChoices
from pydantic.fields import FieldInfo

from agent.settings import AgentSettings
from workers.core.pools import PoolLimits, PoolTimeouts
from workers.settings import Settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", generator().PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (ROOT / name).read_text() == generator().PAGES[name](), "run `make docs`"


def test_a_stale_page_is_named_by_the_check_and_renewed_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = generator()
    (tmp_path / "docs").mkdir()
    for name in program.PAGES:
        (tmp_path / name).write_text(
            (ROOT / name).read_text().replace("pending", "waiting").replace("Agents it", "Pods it")
        )
    monkeypatch.setattr(program, "ROOT", tmp_path)
    assert program.main(["--check"]) == 1
    told = capsys.readouterr().err
    assert [f"{name} is stale: run `make docs`" in told for name in program.PAGES] == [True] * len(program.PAGES)
    assert program.main([]) == 0
    assert program.main(["--check"]) == 0
    assert (tmp_path / "ARCHITECTURE.md").read_text().count("apply_pending --> applying") == 1


def test_every_setting_is_in_the_reference() -> None:
    text = (DOCS / "reference.md").read_text()
    fields = [*Settings.model_fields.items(), *AgentSettings.model_fields.items()]
    settings = [name for field in fields for name in _variables(*field)]
    assert [name for name in settings if f"`{name}`" not in text] == []


def test_every_field_of_a_pools_limits_and_timeouts_is_in_the_reference_with_no_other() -> None:
    text = (DOCS / "reference.md").read_text()
    fields = {f"limits.{name}" for name in PoolLimits.model_fields} | {
        f"timeouts.{name}" for name in PoolTimeouts.model_fields
    }
    assert set(re.findall(r"`((?:limits|timeouts)\.\w+)`", text)) == fields


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_failure_is_named_by_a_test_and_every_number_in_the_code_is_on_the_page() -> None:
    listed = set(re.findall(r"^\| (F\d+) \|", (DOCS / "failures.md").read_text(), re.MULTILINE))
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    code = "".join(path.read_text() for half in ("workers", "agent", "bench") for path in (ROOT / half).rglob("*.py"))
    assert listed - _cited(tests) == set()
    assert _cited(tests + code) - listed == set()


def _variables(name: str, field: FieldInfo) -> list[str]:
    """The variables that a setting is read from: its own, unless it is another program's."""
    match field.validation_alias:
        case AliasChoices(choices=choices):
            return [str(choice) for choice in choices]
        case str(alias):
            return [alias]
    return [f"TERRASLOT_{name.upper()}"]


def _cited(text: str) -> set[str]:
    return set(re.findall(r"\b(F\d{1,2})\b", text))
