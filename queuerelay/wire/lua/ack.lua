#!lua flags=allow-oom
-- Ends a lease because the work is done; the reply, if any, goes out in the same step.
-- KEYS: inflight, leases, meta, and the list for the reply where there is one
-- ARGV: token, reply, seconds after which an unread reply list vanishes, and how many replies that
--   list keeps: 0 for an inbox, which loses none, and has its term from its relay
-- Gives 1, or 0 where the token no longer held the message: then nothing is replied.
local function act()
  -- What is no list fails here, before the first change: a script is not undone.
  if KEYS[4] then
    redis.call('LLEN', KEYS[4])
  end
  -- The message itself last: where one of these fails, it is still in flight.
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
    return 0
  end
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
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'zset', 'hash', 'list'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
