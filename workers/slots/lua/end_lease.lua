-- How a verb ends that ends the lease of a run: expects run, agent, slot, state, and what to reply.
redis.call('HDEL', LEASES, run)
redis.call('HDEL', SLOTS, agent .. '/' .. slot)
if state == 'reserved' then redis.call('ZREM', RESERVED, run) end
local weight = slot == '0' and 4 or slot
local score = tonumber(redis.call('ZINCRBY', ROOM, -weight, agent))
if score < 0 then score = tonumber(redis.call('ZINCRBY', ROOM, 2 * weight, agent)) end
if math.abs(score) == TAKEN then
  local now = ARGV[1] ~= '' and ARGV[1] or redis.call('TIME')[1]
  redis.call('ZADD', ROOM, score < 0 and -now or now, agent)
end
return reply
