#!lua flags=allow-oom
-- Ends a lease because the message failed for good.
-- KEYS: inflight, leases, meta, failed, and the list for the reply where there is one
-- ARGV: token, entry for the failed list, reply, seconds after which an unread reply list vanishes,
--   and how many replies that list keeps: 0 for an inbox, as in ack.lua
-- Gives 1, or 0 where the token no longer held the message.
-- What is no list fails here, before the first change: a script is not undone.
redis.call('LLEN', KEYS[4])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('RPUSH', KEYS[4], ARGV[2])
if KEYS[5] then
  redis.call('RPUSH', KEYS[5], ARGV[3])
  if ARGV[5] == '0' then
    redis.call('EXPIRE', KEYS[5], ARGV[4], 'NX')
  else
    redis.call('LTRIM', KEYS[5], '-' .. ARGV[5], -1)
    redis.call('EXPIRE', KEYS[5], ARGV[4])
  end
end
return 1
