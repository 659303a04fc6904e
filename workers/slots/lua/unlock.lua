-- Ends a round of work: frees the lock, unless another round was asked for, which the owner does then.
-- KEYS: 1 lock, 2 rerun flag, as in lock.lua
-- ARGV: 1 owner, 2 time to live of another round in milliseconds; 0 frees the lock whatever was asked for
-- Returns 1 if the owner is done (also if another owner has the lock), 0 if it is to do another round.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 1 end
if ARGV[2] ~= '0' and redis.call('DEL', KEYS[2]) == 1 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return 0
end
redis.call('DEL', KEYS[1])
return 1
