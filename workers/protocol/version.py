"""The version of the contract between agent and control plane, and what each of the two makes of the other's.

| version | since | what an agent of it can do |
| --- | --- | --- |
| 1 | 0.1 | reads messages and records of exactly the fields that it knows |
| 2 | 0.2 | ignores unknown fields, keeps new words of a record; names its programs; knows run options and all sources |

A control plane gives runs to agents from :data:`OLDEST_AGENT` on, and replaces idle ones that are older than itself.
What it sends must be readable by all of these: a field that is left out where it has its default costs no version, an
order that an agent must understand to do no harm costs one.
"""

from collections.abc import Sequence

from workers.protocol.programs import Program

PROTOCOL = 2
OLDEST_AGENT = 1
OPTIONS_SINCE = 2
SOURCES_SINCE = 2  # archives, submodules, and keys for ssh
PROGRAMS_SINCE = 2
LOCKS_SINCE = 2  # whose lock is not waited for


# Characters of an instance id. It stands in a record, of which no more than 1,000 are kept (lua/repair.lua).
_LONGEST_ID = 800


def instance_id(unique: str, programs: Sequence[Program] = ()) -> str:
    """Return the id of one process of an agent: it begins with the version, and ends with the programs that it has.

    So every reader of the id knows both. A word of its own in the record would not do: version 1 refuses records with
    one word more. Programs for which there is no room, some fifty, are left out, the last ones first.
    """
    whole = ",".join([f"{PROTOCOL}.{unique}", *(program.word for program in programs)])
    return whole if len(whole) <= _LONGEST_ID else whole[: _LONGEST_ID + 1].rpartition(",")[0]


def protocol_of(instance: str) -> int:
    """Return the version that an agent registered with; 1 for an id that names none, as version 1 did."""
    version, dot, _ = instance.partition(".")
    return int(version) if dot and version.isdecimal() else 1


def programs_of(instance: str) -> tuple[Program, ...]:
    """Return the programs that an agent registered with; none for one that does not say, as version 1 did."""
    words = instance[:_LONGEST_ID].split(",")[1:]
    return tuple(program for word in words if (program := Program.of_word(word)) is not None)
