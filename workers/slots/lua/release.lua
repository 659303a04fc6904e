-- Ends a lease, running or reserved: its slot is idle. The text of end_lease.lua follows.
-- KEYS: 1 to 3
-- ARGV: 2 run, 3 token
-- Returns 1, or 0 if the token is not the lease's; then nothing changes.
local run, reply = ARGV[2], 1
local record = redis.call('HGET', LEASES, run) or ''
local agent, slot, token, state = string.match(record, '^%S+ (%S+) (%d) (%S+) (%S+)')
if token ~= ARGV[3] then return 0 end

