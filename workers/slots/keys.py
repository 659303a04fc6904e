"""Every key of a pool.

What each key of the slot map holds is said where it is read: at the top of ``lua/keys.lua``.
"""

from workers.protocol.errors import InvalidRequest
from workers.protocol.names import NAME
from workers.slots.records import run_id

# The slot map's keys, in the order in which the verbs take them.
SLOT_MAP = ("room", "leases", "reserved", "agents", "heartbeats")


class PoolKeys:
    """The keys of one pool. Raises :class:`InvalidRequest` for a name that could mean something in a key."""

    def __init__(self, pool: str) -> None:
        if not NAME.fullmatch(pool):
            raise InvalidRequest(f"{pool!r} is not a pool's name: use lower-case letters, digits and '-'.")
        self._pool = pool

    def _key(self, *parts: str) -> bytes:
        return f"ts:{{{self._pool}}}:{':'.join(parts)}".encode()

    @property
    def slot_map(self) -> tuple[bytes, ...]:
        """The keys of the slot map, in the order of :data:`SLOT_MAP`."""
        return tuple(self._key(name) for name in SLOT_MAP)

    @property
    def watch(self) -> bytes:
        """Since when, and when last, the heartbeats were watched."""
        return self._key("watch")

    @property
    def reports(self) -> bytes:
        """The queue of the agents' reports."""
        return self._key("reports")

    @property
    def taken_reports(self) -> bytes:
        """The reports that a reader took last."""
        return self._key("reports", "taken")

    def lock(self, job: str) -> tuple[bytes, bytes]:
        """Return the lock of a job, and its rerun flag."""
        return self._key("lock", job), self._key("lock", job, "wanted")

    def wake_up(self, job: str) -> bytes:
        """Return what is there while the message that asks for a job is under way."""
        return self._key("wake-up", job)

    def log(self, run: str) -> bytes:
        """Return the log stream of a run. Raises :class:`InvalidRequest` for what is no run id."""
        return self._key("log", run_id(run))

    def log_batches(self, run: str, writer: str) -> bytes:
        """Return what one writer of a run's log has written."""
        return self._key("log", run_id(run), writer)

    def log_beginning(self, run: str) -> bytes:
        """Return the first lines of a run's log, of each of its writers."""
        return self._key("log", run_id(run), "beginning")

    def state(self, run: str) -> bytes:
        """Return the state that a run has rescued, or is to push, while it is under way."""
        return self._key("state", run_id(run))

    def progress(self, run: str) -> bytes:
        """Return how far a run's phase has come, as its agent says while it executes."""
        return self._key("progress", run_id(run))
