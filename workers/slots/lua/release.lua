-- Ends a lease, running or reserved: its slot is idle.
-- KEYS: 1 to 3
-- ARGV: 2 run, 3 token
-- Returns 1, also if the run holds no slot; 0 if the token is not the lease's, and then nothing changes.
local record = redis.call('HGET', LEASES, ARGV[2])
if not record then return 1 end
local agent, slot, token, state = string.match(record, '^%S+ (%S+) (%d) (%S+) (%S+)')
if token ~= ARGV[3] then return 0 end
redis.call('HDEL', LEASES, ARGV[2], agent .. '/' .. slot)
if state == 'reserved' then redis.call('ZREM', RESERVED, ARGV[2]) end
local score = tonumber(redis.call('ZSCORE', FREE, agent))
local size = math.abs(score) - (slot == '0' and 4 or slot)
if size == TAKEN then size = ARGV[1] ~= '' and ARGV[1] or redis.call('TIME')[1] end
redis.call('ZADD', FREE, score < 0 and -size or size, agent)
return 1
