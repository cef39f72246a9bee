#!lua flags=allow-oom
-- Pauses a queue; from here on no claim takes from it. One that is paused stays as it is.
-- allow-oom: a full Redis is a reason to pause. It adds one small field for each queue.
-- KEYS: gate
-- ARGV: queue, who pauses it (a JSON text)
-- Gives 1, or 0 where it was paused.
local function act()
  local time = redis.call('TIME')
  local since = string.format('%s.%03d', time[1], math.floor(time[2] / 1000))
  return redis.call('HSETNX', KEYS[1], ARGV[1], '{"since":' .. since .. ',"by":' .. ARGV[2] .. '}')
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
