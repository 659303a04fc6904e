-- Revokes the order of a lease under which nothing has started: its token starts nothing any more. The lease stays
-- until the database says what becomes of its run, and is released then: a repeated call finds it, and so does whoever
-- goes on after a process that died in between.
-- ARGV: 2 run, 3 token
-- Returns 1, or 0 if the token is not the lease's or was redeemed; then nothing changes.
local lease = read_lease(ARGV[2], ARGV[3])
if not lease or (lease.redeemer ~= NONE and lease.redeemer ~= REVOKED) then return 0 end
lease.redeemer = REVOKED
write_lease(ARGV[2], lease)
return 1
