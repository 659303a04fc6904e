-- Takes agents without a heartbeat out of the free indexes, until they are heard again.
--
-- No agent is marked during a warm-up, which begins when the map is first watched, or watched again after a gap: the
-- server was away, so that a missing heartbeat says nothing about the agent.
-- ARGV: 2 seconds without a heartbeat after which an agent is silent, and length of the warm-up; 3 longest gap, seconds
-- Returns the names of all silent agents, longest silent first; none during a warm-up.
local now, after, gap = clock(), tonumber(ARGV[2]), tonumber(ARGV[3])
local since, last = string.match(redis.call('GET', KEYS[6]) or '', '^(%S+) (%S+)$')
if not since or now - last > gap then since = now end
redis.call('SET', KEYS[6], since .. ' ' .. now, 'EX', math.ceil(gap) + 1) -- after a gap it means nothing
if now - since < after then return {} end

local names = redis.call('ZRANGEBYSCORE', HEARTBEATS, '-inf', string.format('(%.6f', now - after))
for _, name in ipairs(names) do
  local a = read_agent(name)
  if a and a.silent == '0' then
    a.silent = '1'
    write_agent(name, a)
  end
end
return names
