-- Puts a message into the queue of an agent, whose queue goes by itself where nobody takes what is in it.
-- KEYS: 1 the queue, a LIST that Celery reads
-- ARGV: 1 the message, 2 seconds for which it is kept
-- Returns 1. A repeated call puts it there twice: the agent redeems the token of an order once.
redis.call('LPUSH', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
