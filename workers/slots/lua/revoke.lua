-- Ends a lease under which nothing has started: its token starts nothing any more. The text of end_lease.lua follows.
-- ARGV: 2 run, 3 token
-- Returns 1, or 0 if the token is not the lease's or was redeemed; then nothing changes.
local run, reply = ARGV[2], 1
local lease = read_lease(run, ARGV[3])
if not lease or lease.redeemer ~= NONE then return 0 end
local agent, slot, state = lease.agent, lease.slot, lease.state

