-- Gives a run a slot: finds and takes it in one step. A plan prefers a plan-only slot; a plan_and_apply takes slot 0
-- only. Of the agents with such a slot the busiest gives it, so that idle ones stay idle; of idle ones the one that
-- is idle for the shortest time.
-- KEYS: 1 to 3
-- ARGV: 2 run, 3 kind, 4 token
-- Returns the lease's record (unchanged, if the run holds one already), or nil where no slot is free.
local run, kind, token = ARGV[2], ARGV[3], ARGV[4]
local agent, slots, slot

local function busiest(most)
  agent = redis.call('ZREVRANGEBYSCORE', ROOM, most, FREE, 'LIMIT', 0, 1)[1] or agent
end

if kind == 'plan' then
  busiest('+inf')
  slots = agent and read_slots(agent)
  if agent and slots[1] ~= NONE and slots[2] ~= NONE then
    busiest('(' .. APPLY)
    slots = read_slots(agent)
  end
  slot = agent and (slots[1] == NONE and 1 or slots[2] == NONE and 2 or 0)
else
  busiest(APPLY)
  slots, slot = agent and read_slots(agent), 0
end

local record = agent and kind .. ' ' .. agent .. ' ' .. slot .. ' ' .. token .. ' running ' .. clock() .. ' - - - -'
if not agent or redis.call('HSETNX', LEASES, run, record) == 0 then return redis.call('HGET', LEASES, run) end
slots[slot] = run
write_slots(agent, slots)
return record
