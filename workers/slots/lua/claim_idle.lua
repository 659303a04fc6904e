-- Claims agents for removal: accepting ones whose three slots are all idle, longest idle first. Their slots are given
-- to no run from now on. Those that this claim has already count: a repeated call claims no more.
-- ARGV: 2 how many at most, 3 claim, 4 among (1: only the agents that follow, in their order; 0: all), then agents
-- Returns the names of those that the claim has, at most the count, in the same order: also those that it had before.
local count, claim, names, chosen, place = tonumber(ARGV[2]), ARGV[3], {}, {}, {}

local function idle_since(name)
  local score = tonumber(redis.call('ZSCORE', FREE, name) or TAKEN + 1)
  return math.abs(score) <= TAKEN and score or nil
end
local function is_before(one, other)
  local first, second = place[one] or math.abs(idle_since(one)), place[other] or math.abs(idle_since(other))
  return first < second or first == second and one < other
end
local function choose(name)
  if #chosen < count then table.insert(chosen, name) end
end

if ARGV[4] == '0' then
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', FREE, -TAKEN, '(0')) do table.insert(names, name) end
  table.sort(names, is_before)
else
  for i = 5, #ARGV do
    table.insert(names, ARGV[i])
    place[ARGV[i]] = i
  end
end
for _, name in ipairs(names) do
  local a = idle_since(name) and read_agent(name)
  if a and a.claim == claim then choose(name) end
end

if ARGV[4] == '0' then
  names = redis.call('ZRANGEBYSCORE', FREE, 0, TAKEN, 'LIMIT', 0, math.max(count - #chosen, 0))
end
for _, name in ipairs(names) do
  local since = idle_since(name)
  if since and since >= 0 and #chosen < count then
    local a = read_agent(name)
    a.claim = claim
    write_agent(name, a)
    choose(name)
  end
end
table.sort(chosen, is_before)
return chosen
