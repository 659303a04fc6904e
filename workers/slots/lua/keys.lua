-- Before every verb: its keys, and what they hold.
--
-- KEYS, all of one pool (spelled in workers/slots/keys.py); a verb is given the first ones, as far as it needs them:
--   1 room        ZSET  the free-slot index: every agent, by what is taken of it, see below
--   2 leases      HASH  run -> "kind agent slot token state since redeemer kept_until cancel lost_since",
--                       and the way back: "agent/slot" -> the run that holds it
--   3 reserved    ZSET  the runs whose slot is reserved, by kept_until
--   4 agents      HASH  agent -> "instance_id draining silent registered_at claim", then the cause of the drain where
--                       it is not a person's: 'cordon'. An instance_id is "version.unique", and after commas the
--                       programs that the agent has: "2.c0ffee,terraform/1.9.8,tofu/1.10.1"
--   5 heartbeats  ZSET  every agent, by the time of its last heartbeat
--   6 watch       STRING "watched_since last_watched", of the heartbeats
-- ARGV[1] is the time in seconds since the epoch, or '' for the server's clock; a verb's own arguments follow.
--
-- A record is words parted by single spaces ('-' is nothing, flags are 0 and 1): half of what JSON costs. Times are
-- seconds since the epoch; in records they stay text, so that no digit is lost. A later version may add words at the
-- end: every verb leaves them in place. A lease's redeemer is the call that redeemed its token, or REVOKED where
-- nothing was started under it and nothing will be.
--
-- Every verb is answered alike when it is repeated: a client, or its caller, repeats a call whose reply was lost.
--
-- An agent's score in the index is the time since when its three slots are idle, or else TAKEN plus 1 for slot 1, 2 for
-- slot 2 and 4 for slot 0, whichever are taken. So the busiest agent with a free slot is the last of a range: up to
-- SOME_FREE for a plan, up to APPLY_FREE for a plan_and_apply; at APPLY_FREE itself nothing but slot 0 is free. The
-- longest idle agent is the first. The score of an agent that accepts no runs is negated.
local FREE, LEASES, RESERVED, AGENTS, HEARTBEATS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local NONE, REVOKED, TAKEN, APPLY_FREE, SOME_FREE = '-', 'revoked', 1000000000000, '1000000000003', '1000000000006'

