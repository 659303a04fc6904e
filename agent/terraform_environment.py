"""The environment of Terraform: the agent's own and the workspace's, without the platform's.

Cloud credentials, proxies and ``TF_*`` settings of the pod reach Terraform. The agent's Redis does not, nor do the
passwords and keys for the workspace's source. A plugin cache that is set there is used by one ``init`` at a time:
Terraform does not guard it, and parallel inits corrupt it. Where none is set, every ``init`` has its own
(:mod:`agent.prepared`).
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from agent.files import read_regular
from agent.settings import AgentSettings
from workers.protocol.git_remote import DECIDES_SERVER
from workers.protocol.settings import without_ours
from workers.protocol.sources import CREDENTIALS, KNOWN_HOSTS

_OF_SOURCES = (*CREDENTIALS, "GIT_USERNAME", KNOWN_HOSTS, "ARCHIVE_USERNAME")
_FIXED = {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
_CACHE_SETTING = re.compile(r'^\s*plugin_cache_dir\s*=\s*"([^"]+)"', re.MULTILINE)


def terraform_environment(
    settings: AgentSettings, own: Mapping[str, str], logger: FilteringBoundLogger
) -> dict[str, str]:
    """Return what every Terraform of this agent is given, made from the agent's ``own`` environment."""
    secrets = {settings.redis_url, settings.broker_url} - {""}
    base = {name: value for name, value in without_ours(own).items() if not any(secret in value for secret in secrets)}
    config = base.get("TF_CLI_CONFIG_FILE")
    if config and not Path(config).exists():
        # With a missing file every command of every run would begin with a warning.
        logger.warning("TF_CLI_CONFIG_FILE ignored, its file is missing", path=config)
        del base["TF_CLI_CONFIG_FILE"]
    return base


def run_environment(base: Mapping[str, str], workspace: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of one run's commands."""
    given = {name: value for name, value in workspace.items() if name not in _OF_SOURCES}
    environment = {**base, **given, **_FIXED}
    # What init makes stays in the run's own directory.
    environment.pop("TF_DATA_DIR", None)
    return environment


def deciding_servers(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the variables that decide which server answers to an address: proxies, trusted authorities, the home."""
    return sorted((name, value) for name, value in environment.items() if DECIDES_SERVER.fullmatch(name))


def named_configuration(environment: Mapping[str, str], module: Path) -> Path | None:
    """Return the file that is named as Terraform's own configuration. Terraform runs in ``module``, and looks there."""
    named = environment.get("TF_CLI_CONFIG_FILE") or environment.get("TERRAFORM_CONFIG")
    return module / named if named else None


def plugin_cache(environment: Mapping[str, str], module: Path) -> Path | None:
    """Return the directory in which Terraform keeps providers for all runs, if one is set there or in its file."""
    if directory := environment.get("TF_PLUGIN_CACHE_DIR"):
        return module / Path(directory).expanduser()
    config = named_configuration(environment, module) or module / environment.get("HOME", "/") / ".terraformrc"
    try:
        found = _CACHE_SETTING.search(read_regular(config).decode(errors="replace"))
    except OSError:
        return None
    # Terraform expands $HOME and other variables there.
    return module / Path(os.path.expandvars(found[1])).expanduser() if found else None
