-- Shared by the verbs that read or change what an agent is, apart from its slots.

-- Now, to the microsecond.
local function clock()
  if ARGV[1] ~= '' then return ARGV[1] end
  local time = redis.call('TIME')
  return string.format('%d.%06d', time[1], time[2])
end

-- nil if there is no agent of this name whose record can be read.
local function read_agent(name)
  local record = redis.call('HGET', AGENTS, name)
  if not record then return nil end
  local instance_id, draining, silent, registered_at, claim, more =
    string.match(record, '^(%S+) (%d) (%d) (%S+) (%S+)(.*)$')
  if not instance_id then return nil end
  local cause, later = string.match(more, '^ (%S+)(.*)$')
  return {instance_id = instance_id, draining = draining, silent = silent, registered_at = registered_at,
    claim = claim, cause = cause or NONE, more = later or ''}
end

-- Stores what an agent is, and whether it accepts runs; one that is new is idle since now.
local function write_agent(name, a)
  redis.call('HSET', AGENTS, name,
    a.instance_id .. ' ' .. a.draining .. ' ' .. a.silent .. ' ' .. a.registered_at .. ' ' .. a.claim ..
    ((a.cause ~= NONE or a.more ~= '') and ' ' .. a.cause or '') .. a.more)
  local size = math.abs(tonumber(redis.call('ZSCORE', FREE, name) or clock()))
  local accepts = a.draining == '0' and a.silent == '0' and a.claim == NONE
  redis.call('ZADD', FREE, accepts and size or -size, name)
end

-- The runs of an agent, by slot, false for an idle one: from [1] on, as Lua counts.
local function runs_of(name)
  return redis.call('HMGET', LEASES, name .. '/0', name .. '/1', name .. '/2')
end

