-- Ends a round of work: frees the lock, unless another round was asked for, which the owner does then.
-- Repeated, it answers alike: the flag keeps which round's end was answered so, until the next one ends.
-- KEYS: 1 lock, 2 rerun flag, as in lock.lua
-- ARGV: 1 owner, 2 time to live of another round in milliseconds, 0 to free the lock whatever was asked for,
--       3 number of the round that has ended, from 1
-- Returns 1 if nothing is left to be done (also if another owner has the lock), 0 if another round was asked for.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 1 end
local answered = ARGV[1] .. ' ' .. ARGV[3]
local flag = redis.call('GET', KEYS[2])
local asked = flag == '1' or flag == answered
if ARGV[2] ~= '0' and asked then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  redis.call('SET', KEYS[2], answered, 'PX', ARGV[2])
  return 0
end
redis.call('DEL', KEYS[1])
if not asked then redis.call('DEL', KEYS[2]) end
return asked and 0 or 1
