-- Shared by the verbs that read or change what an agent is, apart from its slots; slots.lua comes before.

-- nil if there is no agent of this name.
local function read_agent(name)
  local record = redis.call('HGET', AGENTS, name)
  if not record then return nil end
  local incarnation, draining, silent, registered_at = string.match(record, '^(%S+) (%d) (%d) (%S+)$')
  return {incarnation = incarnation, draining = draining, silent = silent, registered_at = registered_at}
end

-- Stores what an agent is, and whether it accepts runs.
local function write_agent(name, a)
  redis.call('HSET', AGENTS, name, a.incarnation .. ' ' .. a.draining .. ' ' .. a.silent .. ' ' .. a.registered_at)
  if a.draining == '0' and a.silent == '0' then
    redis.call('ZADD', ROOM, room(read_slots(name)), name)
  else
    redis.call('ZREM', ROOM, name)
  end
end

