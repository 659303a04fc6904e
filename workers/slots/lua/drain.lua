-- Starts or ends the drain of an agent. What it holds goes on.
-- ARGV: 2 agent, 3 draining (1 drains, 0 ends the drain)
-- Returns 1, or 0 if there is no such agent.
local a = read_agent(ARGV[2])
if not a then return 0 end
a.draining = ARGV[3]
write_agent(ARGV[2], a)
return 1
