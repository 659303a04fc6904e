-- Appends lines to the log of a run, each cut to a length; beyond the newest, the oldest go, except for the writer's
-- first ones, of which there is a copy. A batch is appended once, however often it is sent: the server refuses an id in
-- the batches' stream that is not above its last one.
-- KEYS: 1 log, a STREAM of "phase", "text", "at", "number", "attempt"; 2 batches, a STREAM of one writer, whose last id
--       is its last batch; 3 beginning, a STREAM of copies with the ids that they have in the log
-- ARGV: 1 how many lines are kept, about; 2 the longest line in bytes; 3 time to live in seconds; 4 the batch's number,
--       one more than the writer's last; 5 time to live of batches; 6 how many of these lines are copied;
--       7 the first one's number in its writer's output; 8 attempt; then for each line: phase, text, at
local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '1', '0-' .. ARGV[4], 'batch', '')
if type(added) == 'table' and added.err then
  return string.find(added.err, 'equal or smaller', 1, true) and 0 or added
end
redis.call('EXPIRE', KEYS[2], ARGV[5])
local copied, number = tonumber(ARGV[6]), tonumber(ARGV[7])
for i = 9, #ARGV, 3 do
  local line = {'phase', ARGV[i], 'text', string.sub(ARGV[i + 1], 1, ARGV[2]), 'at', ARGV[i + 2],
    'number', string.format('%d', number), 'attempt', ARGV[8]}
  local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(line))
  if copied > 0 then redis.call('XADD', KEYS[3], id, unpack(line)) end
  copied, number = copied - 1, number + 1
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
