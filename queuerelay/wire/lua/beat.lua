#!lua flags=allow-oom
-- A node says that it lives; its inbox lives on with it.
-- KEYS: nodes, node:<id>, inbox:<id>
-- ARGV: id, snapshot, its life (ms), life of the inbox (s), silence that means death (ms)
-- Gives the ids of nodes that have been silent for too long.
local function act()
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  redis.call('EXPIRE', KEYS[3], ARGV[4])
  return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[5]), 'LIMIT', 0, 16)
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'zset'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
