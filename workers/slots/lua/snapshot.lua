-- The whole pool at one moment.
-- Returns {{agent, record, ...}, {agent, score in room, ...}, {agent, heartbeat_at, ...}, {run, lease's record, ... and
--         agent/slot, run, ...}}.
return {redis.call('HGETALL', AGENTS), redis.call('ZRANGE', ROOM, 0, -1, 'WITHSCORES'),
  redis.call('ZRANGE', HEARTBEATS, 0, -1, 'WITHSCORES'), redis.call('HGETALL', LEASES)}
