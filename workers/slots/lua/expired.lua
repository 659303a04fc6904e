-- Reservations whose time is over. Changes nothing: the database decides first.
-- Returns {run, lease's record, ...}, longest overdue first.
local found = {}
for _, run in ipairs(redis.call('ZRANGEBYSCORE', RESERVED, '-inf', clock())) do
  table.insert(found, run)
  table.insert(found, redis.call('HGET', LEASES, run))
end
return found
