-- Appends lines to the log of a run, each cut to a length; beyond the newest, the oldest go. A batch is appended once,
-- however often it is sent: the server refuses an id in the batches' stream that is not above its last one.
-- KEYS: 1 log, a STREAM of "phase", "text", "at"; 2 batches, a STREAM of one writer, whose last id is its last batch
-- ARGV: 1 how many lines are kept, about; 2 the longest line in bytes; 3 time to live in seconds; 4 the batch's number,
--       one more than the writer's last; 5 time to live of batches; then for each line: phase, text, at
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '1', '0-' .. ARGV[4], 'batch', '')
if type(added) == 'table' and added.err then
  return string.find(added.err, 'equal or smaller', 1, true) and 0 or added
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
for i = 6, #ARGV, 3 do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*',
    'phase', ARGV[i], 'text', string.sub(ARGV[i + 1], 1, ARGV[2]), 'at', ARGV[i + 2])
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
