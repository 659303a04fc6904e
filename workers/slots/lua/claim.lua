-- Claims one agent for removal, an accepting one whose three slots are idle; or passes the claim of an idle one on:
-- whoever had it can't give it back any more.
-- ARGV: 2 agent, 3 claim, 4 the claim that it is expected to have ('-' for none)
-- Returns 1, or 0 if there is no such agent, or it is not as expected; then nothing changes.
local a = read_agent(ARGV[2])
if not a or a.claim ~= ARGV[4] then return 0 end
local score = tonumber(redis.call('ZSCORE', ROOM, ARGV[2]))
if math.abs(score) > TAKEN or (a.claim == NONE and score < 0) then return 0 end
a.claim = ARGV[3]
write_agent(ARGV[2], a)
return 1
