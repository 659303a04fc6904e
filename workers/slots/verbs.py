"""The verbs of the slot map: a Lua file each, and which of them agents call."""

import redis

from workers.slots import log_stream, report_queue
from workers.slots.connection import Script

# How the text of each verb begins. Those that call no shared function need the keys alone, which is faster.
_LEAN = ("keys",)
_FULL = ("keys", "agents", "leases")
VERBS = {
    **{verb: Script.load(*_LEAN, verb) for verb in ("acquire", "release", "snapshot", "stats")},
    **{
        verb: Script.load(*_FULL, verb)
        for verb in (
            "agent", "cancel", "claim_idle", "deregister", "drain", "give_back", "heartbeat", "mark_silent", "redeem",
            "register", "repair", "reserve", "resume", "revoke", "take_over", "watched",
        )
    },
}  # fmt: skip
# How many of the keys these take; the others take the five of the slot map, without the watch.
FIRST_KEYS = {"acquire": 4, "release": 3, "mark_silent": 6, "watched": 6}
# What an agent's credential can call: it may send no text.
_OF_AGENTS = ("agent", "drain", "heartbeat", "redeem", "register")


def load_agents_verbs(client: redis.Redis) -> None:
    """Let a server know the verbs that agents call; one that was restarted, or took over, has forgotten them."""
    with client.pipeline(transaction=False) as pipeline:
        for verb in (*map(VERBS.__getitem__, _OF_AGENTS), log_stream.APPEND, report_queue.REPORT):
            verb.load_into(pipeline)
        pipeline.execute()
