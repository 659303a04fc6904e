-- Starts or ends the drain of an agent. What it holds goes on. A drain for a cordoned node ends with the cordon: it
-- takes the place of no other drain, and ends no other.
-- ARGV: 2 agent, 3 draining (1 drains, 0 ends the drain), 4 'cordon' where its node is the reason
-- Returns 1, or 0 if there is no such agent.
local a = read_agent(ARGV[2])
if not a then return 0 end
local cause = ARGV[4] == 'cordon' and 'cordon' or NONE
if cause == 'cordon' and a.draining == '1' and a.cause ~= 'cordon' then return 1 end
a.draining, a.cause = ARGV[3], ARGV[3] == '1' and cause or NONE
write_agent(ARGV[2], a)
return 1
