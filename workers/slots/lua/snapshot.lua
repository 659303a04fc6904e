-- The whole pool at one moment.
-- ARGV: 2 how many records of a kind may be
-- Returns {{agent, record, ...}, {agent, score among the free slots, ...}, {agent, heartbeat_at, ...}, {run, lease's record, ... and
--         agent/slot, run, ...}}.
for _, key in ipairs({AGENTS, LEASES}) do
  if redis.call('HLEN', key) > tonumber(ARGV[2]) then return redis.error_reply('ERR the slot map has too many records') end
end
return {redis.call('HGETALL', AGENTS), redis.call('ZRANGE', FREE, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', HEARTBEATS, 0, -1, 'WITHSCORES'), redis.call('HGETALL', LEASES)}
