-- One agent, its slots, its last heartbeat and its leases.
-- ARGV: 2 agent
-- Returns nil if there is none; else {agent's record, slots' record, heartbeat_at, {run, lease's record, ... by slot}}.
local record, slots, leases = redis.call('HGET', AGENTS, ARGV[2]), read_slots(ARGV[2]), {}
if not record then return nil end
for slot = 0, 2 do
  if slots[slot] ~= NONE then
    table.insert(leases, slots[slot])
    table.insert(leases, redis.call('HGET', LEASES, slots[slot]))
  end
end
return {record, redis.call('HGET', SLOTS, ARGV[2]), redis.call('ZSCORE', HEARTBEATS, ARGV[2]), leases}
