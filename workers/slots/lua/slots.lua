-- Shared by the verbs, before every other text: the keys, the clock, and which slots are taken.
--
-- KEYS, all of one pool (spelled in workers/slots/keys.py); a verb is given the first so many that it needs:
--   1 room        ZSET  every agent, by what is taken of it: see below
--   2 leases      HASH  run -> "kind agent slot token state since claim kept_until cancel lost_since"
--   3 slots       HASH  "agent/slot" -> the run that holds it
--   4 reserved    ZSET  the runs whose slot is reserved, by kept_until
--   5 agents      HASH  agent -> "incarnation draining silent registered_at"
--   6 heartbeats  ZSET  every agent, by the time of its last heartbeat
-- ARGV[1] is the time in seconds since the epoch, or '' for the server's clock; a verb's own arguments follow.
--
-- A record is words parted by single spaces ('-' is nothing, flags are 0 and 1): a third of what JSON costs. Times are
-- seconds since the epoch; in records they stay text, so that no digit is lost.
--
-- An agent's score in room is the time since when its three slots are idle, or else TAKEN plus 1 for slot 1, 2 for
-- slot 2 and 4 for slot 0, whichever are taken. So the busiest agent with a free slot is the last of a range: up to
-- SOME_FREE for a plan, up to APPLY_FREE for a plan_and_apply, below APPLY_ONLY for a plan-only slot beside a free
-- slot 0; and the longest idle agent is the first. The score of an agent that accepts no runs is negated.
local ROOM, LEASES, SLOTS, RESERVED, AGENTS, HEARTBEATS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local NONE = '-'
local TAKEN, WEIGHT = 1000000000000, {[0] = 4, 1, 2}
local APPLY_FREE, APPLY_ONLY, SOME_FREE = '1000000000003', '(1000000000003', '1000000000006'

local function clock()
  if ARGV[1] ~= '' then return ARGV[1] end
  local time = redis.call('TIME')
  return string.format('%d.%06d', time[1], time[2])
end

local function taken_of(score)
  return math.max(math.abs(score) - TAKEN, 0)
end

-- Puts a run into a free slot of an agent with this score.
local function fill(agent, score, slot, run)
  local size = TAKEN + taken_of(score) + WEIGHT[slot]
  redis.call('HSET', SLOTS, agent .. '/' .. slot, run)
  redis.call('ZADD', ROOM, score < 0 and -size or size, agent)
end

local function vacate(agent, slot)
  local score = tonumber(redis.call('ZSCORE', ROOM, agent))
  local size = math.abs(score) - WEIGHT[slot]
  if size == TAKEN then size = tonumber(clock()) end
  redis.call('HDEL', SLOTS, agent .. '/' .. slot)
  redis.call('ZADD', ROOM, score < 0 and -size or size, agent)
end

-- The runs of an agent, by slot, false for an idle one: from [1] on, as Lua counts.
local function runs_of(agent)
  return redis.call('HMGET', SLOTS, agent .. '/0', agent .. '/1', agent .. '/2')
end

