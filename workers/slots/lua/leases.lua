-- Shared by the verbs that change leases.

-- The lease of a run; nil if it holds none that can be read, or if a token is given and is not the lease's.
local function read_lease(run, expected)
  local record = redis.call('HGET', LEASES, run)
  if not record then return nil end
  local kind, agent, slot, token, state, since, redeemer, kept_until, cancel, lost_since, more =
    string.match(record, '^(%S+) (%S+) (%d) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)(.*)$')
  if not kind or expected and expected ~= token then return nil end
  return {kind = kind, agent = agent, slot = slot, token = token, state = state, since = since,
    redeemer = redeemer, kept_until = kept_until, cancel = cancel, lost_since = lost_since, more = more}
end

-- Stores the lease of a run, and the end of its reservation. Returns its record.
local function write_lease(run, l)
  local record = l.kind .. ' ' .. l.agent .. ' ' .. l.slot .. ' ' .. l.token .. ' ' .. l.state .. ' ' .. l.since ..
    ' ' .. l.redeemer .. ' ' .. l.kept_until .. ' ' .. l.cancel .. ' ' .. l.lost_since .. l.more
  redis.call('HSET', LEASES, run, record)
  if l.state == 'reserved' then
    redis.call('ZADD', RESERVED, l.kept_until, run)
  else
    redis.call('ZREM', RESERVED, run)
  end
  return record
end

