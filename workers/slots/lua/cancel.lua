-- Revokes a lease under which nothing has started, or marks one under which terraform may be running; the agent's
-- heartbeats carry the mark. A kill overrides an interrupt, never the other way round. The text of end_lease.lua
-- follows.
-- ARGV: 2 run, 3 mode ('interrupt' or 'kill')
-- Returns 'revoked', 'requested' or 'absent'.
local run, reply = ARGV[2], 'revoked'
local lease = read_lease(run)
if not lease then return 'absent' end
if lease.state == 'running' and lease.redeemer ~= NONE then
  if lease.cancel ~= 'kill' then
    lease.cancel = ARGV[3]
    write_lease(run, lease)
  end
  return 'requested'
end
local agent, slot, state = lease.agent, lease.slot, lease.state

