-- Asks for a job's lock. Whoever holds it learns of the wish when it finishes, so no wake-up is lost.
-- KEYS: 1 lock, a STRING owner; 2 wanted, a STRING that exists while work was asked for and not begun
-- ARGV: 1 owner, 2 time to live in milliseconds
-- Returns 1 if the lock is the owner's, else 0.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  redis.call('SET', KEYS[2], '1')
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1
