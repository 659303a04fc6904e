-- Gives a run a slot: finds and takes it in one step. A plan prefers a plan-only slot; a plan_and_apply takes slot 0
-- only. Of the agents with such a slot the busiest gives it, so that idle ones stay idle; of idle ones the one that
-- is idle for the shortest time.
-- KEYS: 1 to 3
-- ARGV: 2 run, 3 kind, 4 token
-- Returns the lease's record (unchanged, if the run holds one already), or nil where no slot is free.
local run, kind, token = ARGV[2], ARGV[3], ARGV[4]

local function busiest(most)
  local last = redis.call('ZREVRANGEBYSCORE', ROOM, most, 0, 'WITHSCORES', 'LIMIT', 0, 1)
  return last[1], tonumber(last[2])
end

local agent, score, slot
if kind == 'plan' then
  agent, score = busiest(SOME_FREE)
  if agent and taken_of(score) == 3 then
    local other, other_score = busiest(APPLY_ONLY)
    if other then agent, score = other, other_score end
  end
  local taken = agent and taken_of(score)
  slot = agent and (taken % 2 < 1 and 1 or taken % 4 < 2 and 2 or 0)
else
  agent, score = busiest(APPLY_FREE)
  slot = 0
end

local record = agent and kind .. ' ' .. agent .. ' ' .. slot .. ' ' .. token .. ' running ' .. clock() .. ' - - - -'
if not agent or redis.call('HSETNX', LEASES, run, record) == 0 then return redis.call('HGET', LEASES, run) end
fill(agent, score, slot, run)
return record
