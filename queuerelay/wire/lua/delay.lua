#!lua flags=allow-oom
-- Ends a lease and keeps the message until it is due. The members of a sorted set are unique, and
-- messages need not be: the token before each keeps equal ones apart.
-- KEYS: inflight, leases, meta, delayed
-- ARGV: token, message, delay (ms)
-- Gives 1, or 0 where the token no longer held the message.
local function act()
  -- What is no sorted set fails here, before the first change: a script is not undone.
  redis.call('ZCARD', KEYS[4])
  -- The message itself last: where one of these fails, it is still in flight.
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then
    return 0
  end
  local time = redis.call('TIME')
  local due = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3])
  redis.call('ZADD', KEYS[4], due, ARGV[1] .. ' ' .. ARGV[2])
  return 1
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'zset', 'hash', 'zset'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
