-- Claims to send the message that asks for a job of a pool.
-- KEYS: 1 what is there while such a message is under way, or the job was begun so lately that it is not to be repeated
-- ARGV: 1 the claimer, a unique name, 2 milliseconds after which a message that was not received counts as lost
-- Returns the milliseconds that are left until the job may be done; -1 where another's message is under way.
local found, left = redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])
if found == ARGV[1] then return math.max(0, left - ARGV[2]) end -- a call that is repeated
if found and found ~= 'received' then return -1 end
local pause = math.max(0, left)
redis.call('SET', KEYS[1], ARGV[1], 'PX', pause + ARGV[2])
return pause
