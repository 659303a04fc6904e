-- Begins the next phase of a run on the slot that it holds, reserved or running: a new token, to be redeemed anew.
-- A lease that was revoked, or was to be cancelled, has no next phase, and a silent agent is given none.
-- ARGV: 2 run, 3 token, 4 new token
-- Returns the lease's record (also when this was done already), or nil.
local run, token, new_token = ARGV[2], ARGV[3], ARGV[4]
local lease = read_lease(run)
if not lease then return nil end
if lease.token == new_token and lease.state == 'running' then return redis.call('HGET', LEASES, run) end
if lease.token ~= token or lease.cancel ~= NONE or lease.redeemer == REVOKED then return nil end
if read_agent(lease.agent).silent == '1' then return nil end
lease.token, lease.state, lease.since = new_token, 'running', clock()
lease.redeemer, lease.kept_until, lease.lost_since = NONE, NONE, NONE
return write_lease(run, lease)
