-- How a verb ends that ends the lease of a run: expects run, agent, slot, state, and what to reply.
redis.call('HDEL', LEASES, run, agent .. '/' .. slot)
if state == 'reserved' then redis.call('ZREM', RESERVED, run) end
local score = tonumber(redis.call('ZSCORE', FREE, agent))
local size = math.abs(score) - (slot == '0' and 4 or slot)
if size == TAKEN then size = ARGV[1] ~= '' and ARGV[1] or redis.call('TIME')[1] end
redis.call('ZADD', FREE, score < 0 and -size or size, agent)
return reply
