-- Counts of the pool, each the size of a record set or of a range of an index.
-- Returns {agents, accepting agents, running, reserved, free slots 0, free plan-only slots}.
local reserved = redis.call('ZCARD', RESERVED)
local function count(least, most) return redis.call('ZCOUNT', ROOM, least, most) end
local idle, one_plan = count(FREE, IDLE), count(APPLY_AND_PLAN, APPLY_AND_PLAN) + count(ONE_PLAN, ONE_PLAN)
return {redis.call('HLEN', AGENTS), redis.call('ZCARD', ROOM), redis.call('HLEN', LEASES) - reserved, reserved,
  count(FREE, APPLY), one_plan + 2 * (idle + count(TWO_PLANS, TWO_PLANS))}
