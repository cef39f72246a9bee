#!lua flags=allow-oom
-- A node says that it lives; its inbox lives on with it.
-- KEYS: nodes, node:<id>, inbox:<id>
-- ARGV: id, snapshot, its life (ms), life of the inbox (s), silence that means death (ms)
-- Gives the ids of nodes that have been silent for too long.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[4])
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[5]), 'LIMIT', 0, 16)
