"""Where Terraform code comes from, and the variables it is given: the part of a workspace that an agent is sent."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

_REF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+@-]{0,254}")
# No host and no user begins with "-", which ssh would take for an option.
_URL = re.compile(
    r"(?:(?:https|ssh|git)://[^\s\x00-\x1f-]|file:///|[A-Za-z0-9_.][A-Za-z0-9_.-]*@[A-Za-z0-9_.][A-Za-z0-9_.-]*:|/)"
    r"[^\s\x00-\x1f]+"
)
_ARCHIVE = re.compile(r"(?:https?://[^\s\x00-\x1f/?#]+/|/)[^\s\x00-\x1f]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A place is a host and its port; before it, for ssh, a user. In https, a token is often all that the user's name is.
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^\s/?#@:\[\]]+)(?::[0-9]*)?(?:[/?#].*)?"
_NO_SECRET = re.compile(rf"(?:(?:ssh|git)://(?:[^\s/?#@:]*@)?|[^:/]+://){_HOST}|file:///.*|(?!.*://).*", re.DOTALL)
_BEFORE_HOST = re.compile(r"([^:/]+)://(?:([^/?#@:]*)[^/?#]*@)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,254}")
_CONFIGURATION = (".tf", ".tf.json", ".tofu", ".tofu.json")
# Environment variables of a workspace or pool, for who fetches its source alone; never in clear.
SSH_KEY = "GIT_SSH_KEY"
KNOWN_HOSTS = "GIT_SSH_KNOWN_HOSTS"  # no secret
CREDENTIALS = ("GIT_PASSWORD", SSH_KEY, "ARCHIVE_PASSWORD")
_RESERVED_ENVIRONMENT = ("TERRASLOT_", "LD_", "PYTHON", "CELERY_")


def is_configuration(file: str) -> bool:
    """Return whether a file of this name is a part of a Terraform or OpenTofu configuration."""
    return file.endswith(_CONFIGURATION)


def _inside(path: str) -> str:
    parts = path.replace("\\", "/").split("/")
    if path.startswith("/") or ".." in parts or "\x00" in path:
        raise ValueError("a subdirectory is relative and stays inside its source: remove the leading '/' or '..'")
    return "/".join(part for part in parts if part not in ("", "."))


def _git_url(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ValueError("a git URL starts with https://, ssh://, file:///, / or user@host:")
    return url


def without_credentials(url: str) -> str:
    """Return a URL without what may be a password or a token: as it may be shown, and given to a command line."""
    if _NO_SECRET.fullmatch(url):
        return url
    before = _BEFORE_HOST.match(url)
    if before is None:
        return "(hidden)"
    scheme, user = before[1], before[2]
    kept = f"{user}@" if user and scheme in ("ssh", "git") else ""
    bare = f"{scheme}://{kept}{url[before.end() :]}"
    return bare if _NO_SECRET.fullmatch(bare) else f"{scheme}://(hidden)"


def _archive(url: str) -> str:
    if not _ARCHIVE.fullmatch(url):
        raise ValueError("an archive is a path that starts with / or a URL that starts with https:// or http://")
    return url


def _sha256(checksum: str) -> str:
    if not _SHA256.fullmatch(checksum):
        raise ValueError("a SHA-256 checksum has 64 digits of 0-9 and a-f, as sha256sum prints them")
    return checksum


def _git_ref(ref: str) -> str:
    if not _REF.fullmatch(ref) or ".." in ref:
        raise ValueError("a git ref is a branch, a tag or a commit, and does not start with '-'")
    return ref


def _variable_names(variables: dict[str, Any]) -> dict[str, Any]:
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not a variable name: letters, digits, '_' and '-', no digit first")
    return variables


def _environment_names(environment: dict[str, str]) -> dict[str, str]:
    for name in _variable_names(environment):
        if name.upper().startswith(_RESERVED_ENVIRONMENT):
            raise ValueError(f"the environment variable {name} is the agent's own and can't be set by a workspace")
    return environment


Subdirectory = Annotated[str, AfterValidator(_inside)]
_Checksum = Annotated[str, AfterValidator(_sha256), Field(json_schema_extra={"pattern": f"^{_SHA256.pattern}$"})]
Variables = Annotated[dict[str, Any], AfterValidator(_variable_names)]
Environment = Annotated[dict[str, str], AfterValidator(_environment_names)]


class Tagged(BaseModel):
    """What is told apart by its field ``type``, which is written also where defaults are left out."""

    @model_serializer(mode="wrap")
    def _with_type(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {"type": getattr(self, "type", None), **handler(self)}


class Value(BaseModel):
    """What one version stores or sends and another reads: what is unknown is kept."""

    model_config = ConfigDict(extra="allow", frozen=True)


class DirectorySource(Tagged, Value):
    """A directory of the agents' machine, or in their pods; copied for every run.

    ``subdir`` is where Terraform runs; the whole ``path`` is copied, so that modules beside it are found.
    """

    type: Literal["directory"] = "directory"
    path: str = Field(pattern=r"^/[^\x00]*$")
    subdir: Subdirectory = ""


class GitSource(Tagged, Value):
    """A git repository. The ref is resolved to a commit once, when the run is first planned.

    ``submodules``: theirs are fetched as well, over the network alone. Agents of 0.1 do not know that.
    """

    type: Literal["git"] = "git"
    url: Annotated[str, AfterValidator(_git_url), Field(json_schema_extra={"pattern": f"^{_URL.pattern}$"})]
    ref: Annotated[str, AfterValidator(_git_ref), Field(json_schema_extra={"pattern": f"^{_REF.pattern}$"})] = "HEAD"
    subdir: Subdirectory = ""
    submodules: bool = False


class ArchiveSource(Tagged, Value):
    """A ``.tar.gz`` or ``.zip``, at a path of the agents or at a URL; its content tells which. Agents of 0.1 know none.

    ``sha256``: what it has to be; required of one that comes over the network.
    """

    type: Literal["archive"] = "archive"
    url: Annotated[str, AfterValidator(_archive), Field(json_schema_extra={"pattern": f"^{_ARCHIVE.pattern}$"})]
    sha256: _Checksum | None = None
    subdir: Subdirectory = ""

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.sha256 is None and not self.url.startswith("/"):
            raise ValueError("an archive from a URL needs its checksum: give sha256 as sha256sum prints it")
        return self


Source = Annotated[DirectorySource | GitSource | ArchiveSource, Field(discriminator="type")]


class SensitiveVariables(Value):
    """Variables whose values only Terraform sees: kept and sent encrypted, masked in what Terraform prints."""

    model_config = ConfigDict(hide_input_in_errors=True)

    variables: Variables = Field(default={}, repr=False)
    environment: Environment = Field(default={}, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """The names, which are no secret."""
        return (*sorted(self.variables), *sorted(self.environment))
