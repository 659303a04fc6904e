-- Ends the claim of an agent: it may be given runs again.
-- ARGV: 2 agent, 3 claim
-- Returns 1, or 0 if the claim is not the agent's; then nothing changes.
local a = read_agent(ARGV[2])
if not a or a.claim ~= ARGV[3] then return 0 end
a.claim = NONE
write_agent(ARGV[2], a)
return 1
