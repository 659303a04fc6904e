-- Counts of the pool, each the size of a record set or of a range of an index.
-- Returns {agents, accepting agents, running, reserved, free slots 0, free plan-only slots}.
local reserved = redis.call('ZCARD', RESERVED)
local function taken(least, most) return redis.call('ZCOUNT', FREE, TAKEN + least, TAKEN + most) end
local idle = redis.call('ZCOUNT', FREE, 0, TAKEN)
return {redis.call('ZCARD', FREE), redis.call('ZCOUNT', FREE, 0, '+inf'),
  redis.call('HLEN', LEASES) / 2 - reserved, reserved,
  idle + taken(1, 3), 2 * (idle + taken(4, 4)) + taken(1, 2) + taken(5, 6)}
