#!lua flags=allow-oom
-- Ends a lease and puts the message back at the head of its queue: it has waited longest.
-- KEYS: inflight, leases, meta, list
-- ARGV: token, message
-- Gives 1, or 0 where the token no longer held the message.
-- What is no list fails here, before the first change: a script is not undone.
redis.call('LLEN', KEYS[4])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('LPUSH', KEYS[4], ARGV[2])
return 1
