-- The whole pool at one moment.
-- Returns {{agent, record, ...}, {agent, slots' record, ...}, {agent, heartbeat_at, ...}, {run, lease's record, ...}}.
return {redis.call('HGETALL', AGENTS), redis.call('HGETALL', SLOTS),
  redis.call('ZRANGE', HEARTBEATS, 0, -1, 'WITHSCORES'), redis.call('HGETALL', LEASES)}
