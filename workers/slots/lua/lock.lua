-- Takes a job's lock, or asks its holder for another round: the holder finds the rerun flag when it unlocks, so that no
-- wake-up is lost. With the lock's key alone, renews what the owner holds: a lock that has expired is lost, though it may
-- be free, since another holder may have changed meanwhile what the owner has looked at.
-- KEYS: 1 lock, a STRING owner; 2 rerun flag, a STRING that exists while another round is asked for; none to renew only
-- ARGV: 1 owner, 2 time to live in milliseconds
-- Returns 1 if the lock is the owner's, else 0.
local holder = redis.call('GET', KEYS[1])
if not KEYS[2] then
  return holder == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0
end
if holder and holder ~= ARGV[1] then
  redis.call('SET', KEYS[2], '1')
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1
