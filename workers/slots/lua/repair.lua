-- Removes what no verb writes: agents may write into their own pool's keys, a hostile one what it likes. Words that
-- only a later version knows stay.
-- ARGV: 2 how many records of a kind may be
-- Returns {key's number, what was removed of it ('' for all of it), ...}.
local removed, most = {}, tonumber(ARGV[2])
local function note(key, name)
  table.insert(removed, key)
  table.insert(removed, string.sub(name, 1, 200))
end

for i, expected in ipairs({'zset', 'hash', 'zset', 'hash', 'zset'}) do
  local found = redis.call('TYPE', KEYS[i]).ok
  local size = found == 'hash' and redis.call('HLEN', KEYS[i]) or found == 'zset' and redis.call('ZCARD', KEYS[i]) or 0
  if found ~= 'none' and found ~= expected or size > most then
    redis.call('DEL', KEYS[i])
    note(i, '')
  end
end

local function is_time(word)
  local time = tonumber(word)
  return time ~= nil and time >= 0 and time < 100000000000 -- the year 5138
end

local function each(key, visit)
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do visit(flat[i], flat[i + 1]) end
end

local agents, sign = {}, {}
each(AGENTS, function(name, record)
  local draining, silent, registered_at, claim = string.match(record, '^%S+ ([01]) ([01]) (%S+) (%S+)')
  local score, heard = redis.call('ZSCORE', FREE, name), redis.call('ZSCORE', HEARTBEATS, name)
  local size = math.abs(tonumber(score) or -1)
  agents[name] = #name < 254 and string.find(name, '^[a-z0-9][a-z0-9.-]*$') and #record < 1000 and is_time(registered_at)
    and is_time(heard) and score and size <= TAKEN + 7
  sign[name] = draining == '0' and silent == '0' and claim == NONE and 1 or -1
  if not agents[name] then
    redis.call('HDEL', AGENTS, name)
    note(4, name)
  end
end)
for i, key in pairs({[1] = FREE, [5] = HEARTBEATS}) do
  for _, name in ipairs(redis.call('ZRANGE', key, 0, -1)) do
    if not agents[name] then
      redis.call('ZREM', key, name)
      note(i, name)
    end
  end
end

local holder = {}
each(LEASES, function(field, value)
  if string.find(field, '/', 1, true) then return end
  local kind, agent, slot, state, since, kept_until, lost_since =
    string.match(value, '^(%S+) (%S+) ([012]) %S+ (%S+) (%S+) %S+ (%S+) %S+ (%S+)')
  if agent and agents[agent] and #field < 129 and #value < 2000 and is_time(since)
    and (slot == '0' or kind == 'plan') and (state == 'reserved') == (kept_until ~= NONE)
    and (kept_until == NONE or is_time(kept_until)) and (lost_since == NONE or is_time(lost_since))
    and redis.call('HGET', LEASES, agent .. '/' .. slot) == field then
    holder[agent .. '/' .. slot] = field
    if state == 'reserved' then
      redis.call('ZADD', RESERVED, kept_until, field)
    else
      redis.call('ZREM', RESERVED, field)
    end
  else
    redis.call('HDEL', LEASES, field)
    redis.call('ZREM', RESERVED, field)
    note(2, field)
  end
end)
each(LEASES, function(field, value)
  if string.find(field, '/', 1, true) and holder[field] ~= value then
    redis.call('HDEL', LEASES, field)
    note(2, field)
  end
end)
for _, run in ipairs(redis.call('ZRANGE', RESERVED, 0, -1)) do
  if redis.call('HEXISTS', LEASES, run) == 0 then
    redis.call('ZREM', RESERVED, run)
    note(3, run)
  end
end

-- The index says of each agent what its record and its leases say.
for name, good in pairs(agents) do
  if good then
    local score = tonumber(redis.call('ZSCORE', FREE, name))
    local size = (holder[name .. '/0'] and 4 or 0) + (holder[name .. '/1'] and 1 or 0) + (holder[name .. '/2'] and 2 or 0)
    size = size > 0 and TAKEN + size or is_time(math.abs(score)) and math.abs(score) or tonumber(clock())
    if score ~= sign[name] * size then
      redis.call('ZADD', FREE, sign[name] * size, name)
      note(1, name)
    end
  end
end
return removed
