#!lua flags=allow-oom
-- Ends a lease and keeps the message until it is due. The members of a sorted set are unique, and
-- messages need not be: the token before each keeps equal ones apart.
-- KEYS: inflight, leases, meta, delayed
-- ARGV: token, message, delay (ms)
-- Gives 1, or 0 where the token no longer held the message.
-- What is no sorted set fails here, before the first change: a script is not undone.
redis.call('ZCARD', KEYS[4])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
local time = redis.call('TIME')
local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
redis.call('ZADD', KEYS[4], due, ARGV[1] .. ' ' .. ARGV[2])
return 1
