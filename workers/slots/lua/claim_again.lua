-- Passes the claim of an idle agent on: whoever had it can't give it back any more.
-- ARGV: 2 agent, 3 claim
-- Returns 1, or 0 if nobody has claimed the agent, or it holds a slot.
local a = read_agent(ARGV[2])
if not a or a.claim == NONE or math.abs(redis.call('ZSCORE', ROOM, ARGV[2])) > TAKEN then return 0 end
a.claim = ARGV[3]
write_agent(ARGV[2], a)
return 1
