-- Ends a round of work: gives the lock back, unless more work was asked for meanwhile.
-- KEYS: 1 lock, 2 wanted, as in lock_request.lua
-- ARGV: 1 owner, 2 time to live in milliseconds
-- Returns 1 if the owner is done (also if the lock has passed to somebody else), 0 if it is to do another round.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 1 end
if redis.call('DEL', KEYS[2]) == 1 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 0
end
redis.call('DEL', KEYS[1])
return 1
