-- Returns since when the heartbeats were watched without a gap, as mark_silent.lua keeps it.
-- Returns {the time, watched since}; both the same where the map was never watched.
local now = clock()
return {now, string.match(redis.call('GET', KEYS[6]) or now, '^(%S+)')}
