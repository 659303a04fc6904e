-- Removes the lines of a run's log that are stored elsewhere. The log's last id stays, so that later lines come after
-- it, unless the run is over. A repeated call finds nothing more.
-- KEYS: 1 log, 2 beginning; STREAMs
-- ARGV: 1 the id of the first line that stays, whether it is there or not; 2 '1' if the run is over
for i = 1, 2 do redis.call('XTRIM', KEYS[i], 'MINID', ARGV[1]) end
if redis.call('XLEN', KEYS[1]) == 0 and ARGV[2] == '1' then redis.call('DEL', KEYS[1], KEYS[2]) end
