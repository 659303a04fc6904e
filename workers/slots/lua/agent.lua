-- One agent, its score among the free slots, its last heartbeat and its leases.
-- ARGV: 2 agent
-- Returns nil if there is none; else {agent's record, score, heartbeat_at, {run, lease's record, ... by slot}}.
local record, leases = redis.call('HGET', AGENTS, ARGV[2]), {}
if not record then return nil end
for _, run in ipairs(runs_of(ARGV[2])) do
  local lease = run and redis.call('HGET', LEASES, run)
  if lease then
    table.insert(leases, run)
    table.insert(leases, lease)
  end
end
return {record, redis.call('ZSCORE', FREE, ARGV[2]), redis.call('ZSCORE', HEARTBEATS, ARGV[2]), leases}
