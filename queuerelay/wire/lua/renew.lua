#!lua flags=allow-oom
-- Prolongs leases that are still held; one that was lost stays lost.
-- KEYS: inflight, leases, meta
-- ARGV: lease (ms), token...
-- Gives one number for each token: 1 prolonged, 0 no longer held.
local function act()
  local time = redis.call('TIME')
  local expiry = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
  local held = {}
  for i = 2, #ARGV do
    if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
      redis.call('ZADD', KEYS[2], expiry, ARGV[i])
      held[#held + 1] = 1
    else
      held[#held + 1] = 0
    end
  end
  return held
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'zset'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
