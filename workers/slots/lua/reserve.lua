-- Keeps the slot of a plan_and_apply for its confirmation. The token stays the lease's and starts nothing any more.
-- ARGV: 2 run, 3 token, 4 until (seconds since the epoch)
-- Returns 1, also when it was reserved already; 0 if the token is not the lease's or the run is a plan.
local lease = read_lease(ARGV[2], ARGV[3])
if not lease or lease.kind ~= 'plan_and_apply' then return 0 end
if lease.state ~= 'reserved' then lease.since = clock() end
lease.state, lease.kept_until, lease.lost_since = 'reserved', ARGV[4], NONE
write_lease(ARGV[2], lease)
return 1
