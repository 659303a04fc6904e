-- Claims agents for removal: accepting ones whose three slots are all idle, longest idle first. Their slots are given
-- to no run from now on.
-- ARGV: 2 how many at most, 3 claim, 4 among (1: only the agents that follow, in their order; 0: all), then agents
-- Returns their names.
local count, names = tonumber(ARGV[2]), {}
if count <= 0 then return names end
if ARGV[4] == '0' then
  names = redis.call('ZRANGEBYSCORE', FREE, 0, TAKEN, 'LIMIT', 0, count)
end
for i = 5, #ARGV do
  local score = tonumber(redis.call('ZSCORE', FREE, ARGV[i]) or -1)
  if score >= 0 and score <= TAKEN and #names < count then table.insert(names, ARGV[i]) end
end
for _, name in ipairs(names) do
  local a = read_agent(name)
  a.claim = ARGV[3]
  write_agent(name, a)
end
return names
