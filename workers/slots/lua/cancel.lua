-- Revokes a lease under which nothing has started, or marks one under which terraform may be running; the agent's
-- heartbeats carry the mark. A kill overrides an interrupt, never the other way round.
-- ARGV: 2 run, 3 mode ('interrupt' or 'kill')
-- Returns 'revoked', 'requested' or 'absent'.
local lease = read_lease(ARGV[2])
if not lease then return 'absent' end
if lease.state == 'reserved' or lease.claim == NONE then
  end_lease(ARGV[2], lease)
  return 'revoked'
end
if lease.cancel ~= 'kill' then
  lease.cancel = ARGV[3]
  write_lease(ARGV[2], lease)
end
return 'requested'
