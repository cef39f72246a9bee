#!lua flags=allow-oom
-- Ends a lease because the work is done; the reply, if any, goes out in the same step.
-- KEYS: inflight, leases, meta, and the list for the reply where there is one
-- ARGV: token, reply, seconds after which an unread reply list vanishes, and how many replies that
--   list keeps: 0 for an inbox, which loses none, and has its term from its relay
-- Gives 1, or 0 where the token no longer held the message: then nothing is replied.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
if KEYS[4] then
  redis.call('RPUSH', KEYS[4], ARGV[2])
  if ARGV[4] == '0' then
    redis.call('EXPIRE', KEYS[4], ARGV[3], 'NX')
  else
    redis.call('LTRIM', KEYS[4], '-' .. ARGV[4], -1)
    redis.call('EXPIRE', KEYS[4], ARGV[3])
  end
end
return 1
