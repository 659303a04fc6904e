-- Revokes a lease under which nothing has started, as revoke.lua does, or marks one under which terraform may be
-- running; the agent's heartbeats carry the mark. A kill overrides an interrupt, never the other way round.
-- ARGV: 2 run, 3 mode ('interrupt' or 'kill')
-- Returns 'revoked', 'requested' or 'absent'.
local lease, reply = read_lease(ARGV[2]), 'revoked'
if not lease then return 'absent' end
if lease.state == 'reserved' or lease.redeemer == NONE then
  lease.redeemer = REVOKED
elseif lease.redeemer ~= REVOKED then
  reply = 'requested'
  if lease.cancel ~= 'kill' then lease.cancel = ARGV[3] end
end
write_lease(ARGV[2], lease)
return reply
