-- Passes the claim of an idle agent on: the previous claimer can't give it back any more.
-- ARGV: 2 agent, 3 claim, 4 the claim that it is expected to have
-- Returns 1, also if it has the new claim; 0 if there is no such agent, it has another claim, or it holds a slot, and
-- then nothing changes.
local a = read_agent(ARGV[2])
if not a or (a.claim ~= ARGV[4] and a.claim ~= ARGV[3]) or math.abs(redis.call('ZSCORE', FREE, ARGV[2])) > TAKEN then
  return 0
end
a.claim = ARGV[3]
write_agent(ARGV[2], a)
return 1
