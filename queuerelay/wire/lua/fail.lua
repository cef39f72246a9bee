#!lua flags=allow-oom
-- Ends a lease because the message failed for good.
-- KEYS: inflight, leases, meta, failed, and the list for the reply where there is one
-- ARGV: token, entry for the failed list, reply, seconds after which an unread reply list vanishes,
--   and how many replies that list keeps: 0 for an inbox, as in ack.lua
-- Gives 1, or 0 where the token no longer held the message.
local function act()
  -- What is no list fails here, before the first change: a script is not undone.
  redis.call('LLEN', KEYS[4])
  if KEYS[5] then
    redis.call('LLEN', KEYS[5])
  end
  -- The message itself last: where one of these fails, it is still in flight.
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
    return 0
  end
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
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'zset', 'hash', 'list', 'list'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
