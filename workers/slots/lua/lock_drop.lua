-- Gives the lock back after an error, whatever was asked for; the next request begins anew.
-- KEYS: 1 lock
-- ARGV: 1 owner
-- Returns 1 if the lock was the owner's, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
