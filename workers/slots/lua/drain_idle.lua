-- Claims agents for removal: accepting ones whose three slots are all idle, longest idle first. Nobody is given a slot
-- of theirs from now on.
-- ARGV: 2 how many at most, 3 claim
-- Returns their names.
local count = tonumber(ARGV[2])
if count <= 0 then return {} end
local names = redis.call('ZRANGEBYSCORE', ROOM, 0, TAKEN, 'LIMIT', 0, count)
for _, name in ipairs(names) do
  local a = read_agent(name)
  a.claim = ARGV[3]
  write_agent(name, a)
end
return names
