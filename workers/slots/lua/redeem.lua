-- Claims the right to start terraform for a token: once, ever. Which call it was is kept, so that the client's own
-- repetition of a call whose reply got lost is answered like the first.
-- ARGV: 2 agent, 3 run, 4 token, 5 the call
-- Returns 1 if this call has the right, 0 if not.
local lease = read_lease(ARGV[3], ARGV[4])
if not lease or lease.agent ~= ARGV[2] or lease.state ~= 'running' then return 0 end
if lease.redeemer == NONE then
  lease.redeemer = ARGV[5]
  write_lease(ARGV[3], lease)
end
return lease.redeemer == ARGV[5] and 1 or 0
