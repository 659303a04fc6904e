-- Takes the oldest reports out of a queue; a repeated call gets the same ones. An agent may have put there what it
-- likes: no more than the beginning of a long one goes to the reader.
-- KEYS: 1 reports, a LIST; 2 taken, a LIST: the last call, then what it took
-- ARGV: 1 how many at most, 2 how many bytes of each, 3 the call, 4 time to live in seconds of what was taken
-- Returns {report's length, its beginning, ...}.
if redis.call('LINDEX', KEYS[2], 0) ~= ARGV[3] then
  if redis.call('LLEN', KEYS[1]) == 0 then return {} end
  redis.call('DEL', KEYS[2])
  redis.call('RPUSH', KEYS[2], ARGV[3])
  for _ = 1, ARGV[1] do
    if not redis.call('LMOVE', KEYS[1], KEYS[2], 'RIGHT', 'RIGHT') then break end
  end
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
local taken = {}
for i, report in ipairs(redis.call('LRANGE', KEYS[2], 1, -1)) do
  taken[2 * i - 1], taken[2 * i] = #report, string.sub(report, 1, ARGV[2])
end
return taken
