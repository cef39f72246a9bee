#!lua flags=allow-oom
-- Takes over the messages whose lease has expired, under new tokens: from here on the old holder
-- can neither renew nor acknowledge, and no two reapers get the same message.
-- KEYS: inflight, leases, meta
-- ARGV: prefix for new tokens, lease (ms), how many at most, and for how long a lease must have been
--   expired (ms), 0 where that is left out
-- Gives a list of {token, message, meta}.
local function act()
  -- With all three a key of the wrong type fails before the first change.
  redis.call('HLEN', KEYS[3])
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local expiry = now + tonumber(ARGV[2])
  if redis.call('HLEN', KEYS[1]) ~= redis.call('ZCARD', KEYS[2]) then
    -- A message in flight without a lease (a restored or half-lost Redis) gets one: a living holder
    -- renews it, a dead one's expires like any other.
    for _, token in ipairs(redis.call('HKEYS', KEYS[1])) do
      redis.call('ZADD', KEYS[2], 'NX', expiry, token)
    end
  end
  local reaped = {}
  local expired = redis.call(
    'ZRANGEBYSCORE', KEYS[2], '-inf', now - (tonumber(ARGV[4]) or 0), 'LIMIT', 0, tonumber(ARGV[3]))
  for i, old in ipairs(expired) do
    redis.call('ZREM', KEYS[2], old)
    local message = redis.call('HGET', KEYS[1], old)
    local meta = redis.call('HGET', KEYS[3], old) or ''
    redis.call('HDEL', KEYS[3], old)
    if message then
      local token = ARGV[1] .. i
      redis.call('HDEL', KEYS[1], old)
      redis.call('HSET', KEYS[1], token, message)
      redis.call('ZADD', KEYS[2], expiry, token)
      redis.call('HSET', KEYS[3], token, meta)
      reaped[#reaped + 1] = {token, message, meta}
    end
  end
  return reaped
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'zset', 'hash'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
