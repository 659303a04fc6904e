"""What the documentation says of the chart is what the chart does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from tests.chart.rendering import CHART, of_kind, render

_ROOT = CHART.parents[1]
_GENERATOR = CHART.parent / "generate.py"
_INSTALL = _ROOT / "docs" / "install-kubernetes.md"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("charts_generate", _GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_current(generator: ModuleType) -> None:
    assert (CHART / "README.md").read_text() == generator.readme(), "run: python charts/generate.py"


def test_the_schema_of_pools_and_workspaces_is_that_of_the_models(generator: ModuleType) -> None:
    assert (CHART / "values.schema.json").read_text() == generator.schema(), "run: python charts/generate.py"


def test_every_value_is_described(generator: ModuleType) -> None:
    described = {path for path, _, _ in generator.described()}

    def undescribed(values: object, path: str) -> list[str]:
        if path in described:
            return []
        if isinstance(values, dict) and values:
            return [each for key, value in values.items() for each in undescribed(value, f"{path}.{key}".strip("."))]
        return [path]

    assert undescribed(yaml.safe_load((CHART / "values.yaml").read_text()), "") == []


def test_the_values_of_the_installation_page_are_taken() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", _INSTALL.read_text(), re.DOTALL)

    objects = render(yaml.safe_load(block))

    assert of_kind(objects, "StatefulSet", "Secret") == []
    assert len(of_kind(objects, "Job")) == 4


def test_the_table_of_resources_is_that_of_the_values() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = dict(re.findall(r"^\| (?:a trial's )?(\w+) \| (\d \| .*?) \|$", _INSTALL.read_text(), re.MULTILINE))
    said = {part.lower(): [cell.strip() for cell in row.split("|")] for part, row in rows.items()}
    resources = {part: each["resources"] for part, each in values.items() if "resources" in (each or {})}

    assert said == {
        part: [
            str(values[part].get("replicas", 1)),
            each["requests"]["cpu"],
            f"{each['requests']['memory']}, at most {each['limits']['memory']}",
            values[part].get("storage", {}).get("size", ""),
        ]
        for part, each in resources.items()
    }


def test_the_chart_is_of_the_packages_version() -> None:
    [version] = re.findall(r'^version = "(.*)"$', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert (chart["version"], chart["appVersion"]) == (version, version)


def test_every_page_that_the_documentation_links_to_is_there() -> None:
    for page in (_INSTALL, CHART / "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert Path(page.parent, link).exists(), link
