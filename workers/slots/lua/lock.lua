-- Takes a job's lock, or asks its holder for another round: the holder finds the rerun flag when it unlocks, so that no
-- wake-up is lost. To renew means to renew what the owner holds: a lock that has expired is lost, though it may be
-- free, since another holder may have changed meanwhile what the owner has looked at.
-- Repeated, it answers alike: the owner holds the lock already, and a flag that is set again asks for the same round.
-- KEYS: 1 lock, a STRING owner; 2 rerun flag, a STRING: "1" while another round is asked for, or what unlock.lua leaves
-- ARGV: 1 owner, 2 time to live in milliseconds, 3 "renew" to renew only, else ""
-- Returns 1 if the lock is the owner's, else 0.
local holder = redis.call('GET', KEYS[1])
if ARGV[3] == 'renew' then
  if holder ~= ARGV[1] then return 0 end
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
if holder and holder ~= ARGV[1] then
  -- It lives as long as the lock, whose holder renews both.
  redis.call('SET', KEYS[2], '1', 'PX', math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[2])))
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('DEL', KEYS[2])
return 1
