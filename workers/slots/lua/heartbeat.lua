-- Takes the heartbeat of an agent, with the tokens that it executes and those that it has reports for. A redeemed
-- lease that is in neither list is lost: its lost_since is set, until the agent names it again.
-- ARGV: 2 agent, 3 instance_id, 4 how many tokens are executed, then those tokens, then the reported ones
-- Returns nil if the agent must register; else {draining (0, 1), {token, mode, ... to cancel}, {tokens to drop},
--         {tokens to report again}}.
local name, now = ARGV[2], clock()
local a = read_agent(name)
if not a or a.instance_id ~= ARGV[3] then return nil end
redis.call('ZADD', HEARTBEATS, now, name)
if a.silent == '1' then
  a.silent = '0'
  write_agent(name, a)
end

local named, first_reported = {}, 5 + tonumber(ARGV[4])
for i = 5, #ARGV do named[ARGV[i]] = true end

local running, cancels = {}, {}
for _, run in ipairs(runs_of(name)) do
  local lease = run and read_lease(run)
  if lease and lease.state == 'running' and lease.redeemer ~= REVOKED then
    running[lease.token] = true
    if lease.cancel ~= NONE then
      table.insert(cancels, lease.token)
      table.insert(cancels, lease.cancel)
    end
    local lost = lease.redeemer ~= NONE and not named[lease.token]
    if lost ~= (lease.lost_since ~= NONE) then
      lease.lost_since = lost and now or NONE
      write_lease(run, lease)
    end
  end
end

local drop, again = {}, {}
for i = 5, #ARGV do
  if i < first_reported and not running[ARGV[i]] then table.insert(drop, ARGV[i]) end
  if i >= first_reported and running[ARGV[i]] then table.insert(again, ARGV[i]) end
end
return {a.claim ~= NONE and 1 or tonumber(a.draining), cancels, drop, again}
