-- Tells the caller of a run where it stands, unless the caller was told of something later, or of the outcome.
-- KEYS: 1 the result of the run's task, a STRING that Celery reads: JSON with "status" and, from here, "step"
-- ARGV: 1 the result, 2 its step: a number that grows along a run's life, or '' for the outcome, which comes after all,
--       3 time to live in seconds
-- Returns 1, or 0 where nothing was told.
local told = ARGV[2] ~= '' and redis.call('GET', KEYS[1])
if told then
  local step = cjson.decode(told).step
  -- What Celery stored itself has no step: it is the outcome.
  if not step or step > tonumber(ARGV[2]) then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
