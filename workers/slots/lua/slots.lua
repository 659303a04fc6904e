-- Shared by the verbs, before every other text: the keys, the clock, and the slots of an agent.
--
-- KEYS, all of one pool (spelled in workers/slots/keys.py); a verb is given the first so many that it needs:
--   1 slots       HASH  agent -> "idle_since run0 run1 run2"
--   2 leases      HASH  run -> "kind agent slot token state since claim kept_until cancel lost_since"
--   3 room        ZSET  the agents that accept runs (neither draining nor silent), by the room that they have
--   4 reserved    ZSET  the runs whose slot is reserved, by kept_until
--   5 agents      HASH  agent -> "incarnation draining silent registered_at"
--   6 heartbeats  ZSET  every agent, by the time of its last heartbeat
-- ARGV[1] is the time in seconds since the epoch, or '' for the server's clock; a verb's own arguments follow.
--
-- A record is words parted by single spaces ('-' is nothing, flags are 0 and 1): a third of what JSON costs. Times are
-- seconds since the epoch and stay text, so that no digit is lost. room and reserved follow from the records, and
-- are written together with them. Every redis.call costs about a microsecond, and every local function a quarter.
local SLOTS, LEASES, ROOM, RESERVED, AGENTS, HEARTBEATS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local NONE = '-'

-- Room is a score that puts the agent to give a slot of at the end of a range: of two agents with a free slot of the
-- wanted kind the busier has more, and three idle slots count as the time since when they are. Plans look from FREE
-- upwards, applies from FREE to APPLY, and who may go is found from FREE to IDLE, longest idle first.
local FULL, FREE, IDLE = '-1', '0', '1000000000000'
local APPLY_AND_PLAN, APPLY, TWO_PLANS, ONE_PLAN = '1000000000001', '1000000000002', '1000000000003', '1000000000004'

local function clock()
  if ARGV[1] ~= '' then return ARGV[1] end
  local time = redis.call('TIME')
  return string.format('%d.%06d', time[1], time[2])
end

-- The slots of an agent: its runs at [0], [1], [2]. nil if there is no such agent.
local function read_slots(agent)
  local record = redis.call('HGET', SLOTS, agent)
  if not record then return nil end
  local idle_since, run0, run1, run2 = string.match(record, '^(%S+) (%S+) (%S+) (%S+)$')
  return {idle_since = idle_since, [0] = run0, run1, run2}
end

local function room(slots)
  local one, two = slots[1] == NONE, slots[2] == NONE
  if slots[0] == NONE then
    return one and two and slots.idle_since or (one or two) and APPLY_AND_PLAN or APPLY
  end
  return one and two and TWO_PLANS or (one or two) and ONE_PLAN or FULL
end

-- Stores the slots. XX: an agent that accepts no runs stays outside.
local function write_slots(agent, slots)
  redis.call('HSET', SLOTS, agent, slots.idle_since .. ' ' .. slots[0] .. ' ' .. slots[1] .. ' ' .. slots[2])
  redis.call('ZADD', ROOM, 'XX', room(slots), agent)
end

