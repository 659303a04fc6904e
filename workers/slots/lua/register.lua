-- An agent appears, or appears again: after the map was lost, after a lost connection, or as a new instance_id. What
-- it is known to hold stays; the leases that it brings are put back where they are missing and no other run's. Only
-- undrain ends a drain.
-- ARGV: 2 agent, 3 instance_id, 4 draining (0, 1), then for each lease: run, kind, slot, token, since,
--       redeemed (0, 1), kept_until ('-' if it is running, a time if it is reserved)
-- Returns nothing.
local name, now = ARGV[2], clock()
local a = read_agent(name) or {draining = '0', claim = NONE, cause = NONE, more = ''}
if a.instance_id ~= ARGV[3] then a.instance_id, a.registered_at = ARGV[3], now end
if ARGV[4] == '1' then a.draining, a.cause = '1', NONE end
a.silent = '0'
write_agent(name, a)
redis.call('ZADD', HEARTBEATS, now, name)

for i = 5, #ARGV, 7 do
  local run, kind, slot, token, since, redeemed, kept_until = unpack(ARGV, i, i + 6)
  local lease = read_lease(run)
  if tonumber(since) > tonumber(now) then since = now end -- by the agent's clock, which may be ahead
  if not lease and redis.call('HEXISTS', LEASES, name .. '/' .. slot) == 0 and (slot == '0' or kind == 'plan') then
    lease = {kind = kind, agent = name, slot = slot, token = token, since = since, redeemer = NONE, cancel = NONE,
      state = kept_until == NONE and 'running' or 'reserved', kept_until = kept_until, lost_since = NONE,
      more = ''}
    redis.call('HSET', LEASES, name .. '/' .. slot, run)
    local score = tonumber(redis.call('ZSCORE', FREE, name))
    local size = math.max(math.abs(score), TAKEN) + (slot == '0' and 4 or slot)
    redis.call('ZADD', FREE, score < 0 and -size or size, name)
  end
  if lease and lease.agent == name and lease.token == token then
    if redeemed == '1' and lease.redeemer == NONE then lease.redeemer = 'registered' end
    write_lease(run, lease)
  end
end
