-- Appends lines to the log of a run, each cut to a length; beyond the newest, the oldest go.
-- KEYS: 1 log, a STREAM of "phase", "text", "at"
-- ARGV: 1 how many lines are kept, about; 2 the longest line in bytes; 3 time to live in seconds; then for each line:
--       phase, text, at
for i = 4, #ARGV, 3 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
    'phase', ARGV[i], 'text', string.sub(ARGV[i + 1], 1, ARGV[2]), 'at', ARGV[i + 2])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
