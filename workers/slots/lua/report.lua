-- Appends a report to the queue of its pool, and wakes the reader. A repeated call appends it again: the reader takes a
-- report twice like once.
-- KEYS: 1 reports, a LIST; the channel that wakes the reader has the same name
-- ARGV: 1 the report, 2 how many may wait
-- Returns 1, or 0 where as many wait; then nothing changes.
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.pcall('PUBLISH', KEYS[1], '') -- rules before 0.2 have no such channel; the reader looks by itself, too
return 1
