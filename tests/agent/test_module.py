"""What the agent reads of a configuration before Terraform does: once, and whatever its files are."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path, PurePath

import pytest

from agent import files, init_inputs
from agent.module import Module
from agent.required_version import required_versions
from agent.state_backend import may_be_configured
from tests.agent.conftest import Configuration


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that modules read from now on."""
    names: list[str] = []

    def reading(path: Path) -> bytes:
        names.append(path.name)
        return files.read_regular(path)

    monkeypatch.setattr("agent.module.read_regular", reading)
    return names


def test_a_file_is_read_once_for_all_that_look_into_it(configuration: Configuration, read: list[str]) -> None:
    configuration.write('terraform {\n  required_version = "> 1"\n}', "a.tf").write("{}", "b.tf.json").write("c")
    module = configuration.module
    assert required_versions(module)
    assert not may_be_configured(module)
    init_inputs.read(module, (), {}, ())
    assert sorted(read) == ["a.tf", "b.tf.json", "main.tf"]


def test_what_is_more_than_real_modules_have_is_read_again(configuration: Configuration, read: list[str]) -> None:
    contents = {name: name.encode() * 120_000 for name in ("one.tf", "two.tf")}  # 720,000 bytes each
    for name, content in contents.items():
        (configuration.path / name).write_bytes(content)
    module = configuration.module
    for _ in range(2):
        assert {name: module.content(name) for name in contents} == contents
    assert read == ["one.tf", "two.tf", "two.tf"]


def test_a_large_module_takes_the_memory_of_one_of_its_files(configuration: Configuration) -> None:
    for number in range(40):
        (configuration.path / f"{number}.tf").write_bytes((b"a" * 1023 + b"\n") * 2**10)  # lines that may be inputs
    tracemalloc.start()
    try:
        init_inputs.read(configuration.module, (), {}, ())
        assert not may_be_configured(configuration.module)
        assert tracemalloc.get_traced_memory()[1] < files.LIMIT * 1.5 < 40 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("line", ['resource "r{}_x" "it" {{ }}\n', 'source = "./{}"\n'])
def test_what_names_endless_providers_or_modules_is_not_looked_into(configuration: Configuration, line: str) -> None:
    configuration.write("".join(map(line.format, range(11_000))))
    with pytest.raises(init_inputs.Unknown):
        init_inputs.read(configuration.module, (), {}, ())


def test_many_called_modules_take_time_in_proportion(
    configuration: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        configuration.write("", f"m{number}/main.tf")
    configuration.write("".join(f'source = "./m{number}"\n' for number in range(500)))
    hashed = PurePath.__hash__
    looked_up: list[PurePath] = []

    def counted(path: PurePath) -> int:
        looked_up.append(path)
        return hashed(path)

    with monkeypatch.context() as patch:
        patch.setattr(PurePath, "__hash__", counted)
        init_inputs.read(configuration.module, (), {}, ())
    assert len(looked_up) < 20 * 500


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_a_file_is_read_as_a_whole(configuration: Configuration, more: int) -> None:
    content = b"#" * (2**16 + more)
    (configuration.path / "main.tf").write_bytes(content)
    assert configuration.module.content("main.tf") == content


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = os.stat(__file__)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda _: before)
        with pytest.raises(OSError, match="not a regular file"):
            files.read_regular(tmp_path / "pipe")


def test_a_link_is_followed_inside_of_the_source_alone(configuration: Configuration, tmp_path: Path) -> None:
    configuration.write("inside", "shared/a.txt").write("", "root/main.tf")
    (tmp_path / "outside").write_text("outside")
    os.mkfifo(tmp_path / "pipe")
    targets = {"in.tf": "../shared/a.txt", "out.tf": "../../outside", "pipe.tf": "../../pipe", "loop.tf": "loop.tf"}
    for name, target in targets.items():
        (configuration.path / "root" / name).symlink_to(target)
    module = Module(configuration.path / "root", configuration.path)
    assert sorted(module.files) == sorted([*targets, "main.tf"])
    assert module.content("in.tf") == b"inside"
    assert module.content("out.tf") is None
    for name in ("pipe.tf", "loop.tf"):
        with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
            module.content(name)


def test_nothing_is_read_where_the_directory_is_a_link_out_of_the_source(
    configuration: Configuration, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/main.tf").write_text("text")
    (configuration.path / "root").symlink_to(tmp_path / "elsewhere")
    module = Module(configuration.path / "root", configuration.path)
    assert not module.is_inside
    assert module.content("main.tf") is None
