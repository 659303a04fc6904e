-- The whole pool at one moment.
-- Returns {{agent, record, ...}, {agent, score among the free slots, ...}, {agent, heartbeat_at, ...}, {run, lease's record, ... and
--         agent/slot, run, ...}}.
return {redis.call('HGETALL', AGENTS), redis.call('ZRANGE', FREE, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', HEARTBEATS, 0, -1, 'WITHSCORES'), redis.call('HGETALL', LEASES)}
