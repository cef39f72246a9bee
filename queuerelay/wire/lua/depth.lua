#!lua flags=no-writes,allow-oom
-- Length of a queue, and when its oldest message was pushed, without moving that message.
-- KEYS: list, delayed, inflight
-- Gives {length, queue_time of the head as text, or false where it has none, delayed, in flight}.
local function act()
  local oldest = redis.call('LINDEX', KEYS[1], 0)
  return {redis.call('LLEN', KEYS[1]),
          oldest and string.match(string.sub(oldest, -64), '"queue_time": ?([%d.]+)}$') or false,
          redis.call('ZCARD', KEYS[2]),
          redis.call('HLEN', KEYS[3])}
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'list', 'zset', 'hash'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
