-- Moves the end of a reservation.
-- ARGV: 2 run, 3 token, 4 until (seconds since the epoch)
-- Returns 1, or 0 if there is no reservation with this token.
local lease = read_lease(ARGV[2], ARGV[3])
if not lease or lease.state ~= 'reserved' then return 0 end
lease.kept_until = ARGV[4]
write_lease(ARGV[2], lease)
return 1
