-- Takes the oldest reports out of a queue. An agent may have put there what it likes: no more than the beginning of
-- a long one goes to the reader.
-- KEYS: 1 reports, a LIST
-- ARGV: 1 how many at most, 2 how many bytes of each
-- Returns {report's length, its beginning, ...}.
local taken = {}
for _ = 1, ARGV[1] do
  local report = redis.call('RPOP', KEYS[1])
  if not report then break end
  table.insert(taken, #report)
  table.insert(taken, string.sub(report, 1, ARGV[2]))
end
return taken
