-- Removes an agent, unless it holds leases that are not settled: what becomes of their runs is decided first. A
-- repeated call finds no agent, and nothing to settle.
-- ARGV: 2 agent, 3 instance_id ('' for whichever it is), 4 settled (1: only the tokens that follow; 0: whatever it
--       holds), then tokens
-- Returns {run, lease's record, ...} of what is not settled, by slot, and then nothing changes; else nothing.
local name, settled, left, held = ARGV[2], {}, {}, {}
local a = read_agent(name)
if not a or (ARGV[3] ~= '' and ARGV[3] ~= a.instance_id) then return left end
for i = 5, #ARGV do settled[ARGV[i]] = true end
for _, run in ipairs(runs_of(name)) do
  local lease = run and read_lease(run)
  if run then table.insert(held, run) end
  if lease and ARGV[4] == '1' and not settled[lease.token] then
    table.insert(left, run)
    table.insert(left, redis.call('HGET', LEASES, run))
  end
end
if #left > 0 then return left end
for _, run in ipairs(held) do
  redis.call('HDEL', LEASES, run)
  redis.call('ZREM', RESERVED, run)
end
redis.call('HDEL', LEASES, name .. '/0', name .. '/1', name .. '/2')
redis.call('ZREM', FREE, name)
redis.call('HDEL', AGENTS, name)
redis.call('ZREM', HEARTBEATS, name)
return left
