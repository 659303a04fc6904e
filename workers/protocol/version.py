"""The version of the contract between agent and control plane, and what each of the two makes of the other's.

| version | since | what an agent of it can do |
| --- | --- | --- |
| 1 | 0.1 | reads messages and records of exactly the fields that it knows |
| 2 | 0.2 | ignores fields that it does not know, keeps new words of a record; knows options of runs and all sources |

A control plane gives runs to agents from :data:`OLDEST_AGENT` on, and replaces idle ones that are older than itself.
What it sends must be readable by all of these: a field that is left out where it has its default costs no version, an
order that an agent must understand to do no harm costs one.
"""

PROTOCOL = 2
OLDEST_AGENT = 1
OPTIONS_SINCE = 2
SOURCES_SINCE = 2  # archives, submodules, and keys for ssh


def instance_id(unique: str) -> str:
    """Return the id of one process of an agent: it begins with the version, which every reader of the id so knows.

    A word of its own in the record would not do: version 1 refuses records with one word more.
    """
    return f"{PROTOCOL}.{unique}"


def protocol_of(instance: str) -> int:
    """Return the version that an agent registered with; 1 for an id that names none, as version 1 did."""
    version, dot, _ = instance.partition(".")
    return int(version) if dot and version.isdecimal() else 1
