-- Gives a run a slot: finds and takes it in one step. A plan prefers a plan-only slot; a plan_and_apply takes slot 0
-- only. Of the agents with such a slot the busiest gives it, so that idle ones stay idle; of idle ones the one that
-- is idle for the shortest time. Agents that have none of the programs that the run requires are passed over: that takes
-- time only while agents of two configurations are mixed.
-- KEYS: 1 to 4
-- ARGV: 2 run, 3 kind, 4 token, then the programs of which its agent must have one; nothing where any agent will do
-- Returns the lease's record (unchanged, if the run holds one already), or nil where no slot is free.
local run, kind, token = ARGV[2], ARGV[3], ARGV[4]
local plan, page = kind == 'plan', #ARGV > 4 and 20 or 1

local function suits(agent)
  if #ARGV == 4 then return true end
  local id = string.match(redis.call('HGET', AGENTS, agent) or '', '^%S+') or ''
  for i = 5, #ARGV do
    if string.find(id .. ',', ',' .. ARGV[i] .. ',', 1, true) then return true end
  end
  return false
end

-- The busiest agent that suits, up to a score, and its own score; nil where none does.
local function busiest(most)
  local passed = 0
  repeat
    local found = redis.call('ZREVRANGEBYSCORE', FREE, most, 0, 'WITHSCORES', 'LIMIT', passed, page)
    for i = 1, #found, 2 do
      if suits(found[i]) then return found[i], found[i + 1] end
    end
    passed = passed + page
  until #ARGV == 4 or #found < 2 * page
end

local agent, score = busiest(plan and SOME_FREE or APPLY_FREE)
if plan and score == APPLY_FREE then
  local other, less = busiest('(' .. APPLY_FREE)
  if other then agent, score = other, less end
end
if not agent then return redis.call('HGET', LEASES, run) end

local taken = math.max(score - TAKEN, 0)
local slot = plan and (taken % 2 == 0 and 1 or taken % 4 < 2 and 2) or 0
local since = ARGV[1] ~= '' and ARGV[1] or redis.call('TIME')[1]
local record = kind .. ' ' .. agent .. ' ' .. slot .. ' ' .. token .. ' running ' .. since .. ' - - - -'
if redis.call('HSETNX', LEASES, run, record) == 0 then return redis.call('HGET', LEASES, run) end
redis.call('HSET', LEASES, agent .. '/' .. slot, run)
redis.call('ZADD', FREE, TAKEN + taken + (slot == 0 and 4 or slot), agent)
return record
