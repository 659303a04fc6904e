-- Ends the claim of an agent: it may be given runs again.
-- ARGV: 2 agent, 3 claim
-- Returns 1, also if nobody claims the agent; 0 if another does or there is none, and then nothing changes.
local a = read_agent(ARGV[2])
if not a or (a.claim ~= ARGV[3] and a.claim ~= NONE) then return 0 end
a.claim = NONE
write_agent(ARGV[2], a)
return 1
