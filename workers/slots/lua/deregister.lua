-- Removes an agent, and ends every lease that it holds.
-- ARGV: 2 agent, 3 instance_id ('' for whichever it is)
-- Returns {run, lease's record, ...} of what it held, by slot; empty also if there is no such agent or instance_id.
local name, held = ARGV[2], {}
local a = read_agent(name)
if not a or (ARGV[3] ~= '' and ARGV[3] ~= a.instance_id) then return held end
for _, run in ipairs(runs_of(name)) do
  local lease = run and redis.call('HGET', LEASES, run)
  if lease then
    table.insert(held, run)
    table.insert(held, lease)
    redis.call('HDEL', LEASES, run)
    redis.call('ZREM', RESERVED, run)
  end
end
redis.call('HDEL', LEASES, name .. '/0', name .. '/1', name .. '/2')
redis.call('ZREM', FREE, name)
redis.call('HDEL', AGENTS, name)
redis.call('ZREM', HEARTBEATS, name)
return held
