-- Lets an owner go on with its round: its lock lives for the whole time again. One that has run out is lost, though
-- nobody may hold it now: somebody may have held it meanwhile, and changed what the round has looked at.
-- KEYS: 1 lock
-- ARGV: 1 owner, 2 time to live in milliseconds
-- Returns 1 if the lock is the owner's, else 0.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
