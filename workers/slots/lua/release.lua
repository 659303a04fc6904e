-- Ends a lease, running or reserved: its slot is idle.
-- KEYS: 1 to 4
-- ARGV: 2 run, 3 token
-- Returns 1, or 0 if the token is not the lease's; then nothing changes.
local lease = read_lease(ARGV[2], ARGV[3])
if not lease then return 0 end
end_lease(ARGV[2], lease)
return 1
