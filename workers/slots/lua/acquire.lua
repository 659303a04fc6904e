-- Gives a run a slot: finds and takes it in one step. A plan prefers a plan-only slot; a plan_and_apply takes slot 0
-- only. Of the agents with such a slot the busiest gives it, so that idle ones stay idle; of idle ones the one that
-- is idle for the shortest time.
-- KEYS: 1 and 2
-- ARGV: 2 run, 3 kind, 4 token
-- Returns the lease's record (unchanged, if the run holds one already), or nil where no slot is free.
local run, kind, token = ARGV[2], ARGV[3], ARGV[4]
local plan = kind == 'plan'

local most = plan and SOME_FREE or APPLY_FREE
local found = redis.call('ZREVRANGEBYSCORE', FREE, most, 0, 'WITHSCORES', 'LIMIT', 0, 1)
if plan and found[2] == APPLY_FREE then
  local less_busy = redis.call('ZREVRANGEBYSCORE', FREE, '(' .. APPLY_FREE, 0, 'WITHSCORES', 'LIMIT', 0, 1)
  if less_busy[1] then found = less_busy end
end
local agent = found[1]
if not agent then return redis.call('HGET', LEASES, run) end

local taken = math.max(found[2] - TAKEN, 0)
local slot = plan and (taken % 2 == 0 and 1 or taken % 4 < 2 and 2) or 0
local since = ARGV[1] ~= '' and ARGV[1] or redis.call('TIME')[1]
local record = kind .. ' ' .. agent .. ' ' .. slot .. ' ' .. token .. ' running ' .. since .. ' - - - -'
if redis.call('HSETNX', LEASES, run, record) == 0 then return redis.call('HGET', LEASES, run) end
redis.call('HSET', LEASES, agent .. '/' .. slot, run)
redis.call('ZADD', FREE, TAKEN + taken + (slot == 0 and 4 or slot), agent)
return record
