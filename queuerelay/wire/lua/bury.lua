#!lua flags=allow-oom
-- Takes a silent node off the list. Its inbox gets a last term instead of vanishing at once: a
-- relay that was only cut off for a while still finds its replies.
-- KEYS: nodes, inbox:<id>, and where there is a legacy list: legacy:<id>, that list
-- ARGV: id, silence that means death (ms), last term of the inbox (s)
-- Gives 1, or 0 where the node has spoken in the meantime.
local function act()
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local beat = redis.call('ZSCORE', KEYS[1], ARGV[1])
  if beat and tonumber(beat) > now - tonumber(ARGV[2]) then
    return 0
  end
  -- What is no list fails here, before the first change: a script is not undone.
  if KEYS[4] then
    redis.call('LLEN', KEYS[3])
    redis.call('LLEN', KEYS[4])
  end
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('EXPIRE', KEYS[2], ARGV[3], 'NX')
  -- Old replies that it had taken but not sorted go back for another relay to sort.
  if KEYS[4] then
    while redis.call('LMOVE', KEYS[3], KEYS[4], 'RIGHT', 'LEFT') do end
  end
  return 1
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'zset', 'list', 'list', 'list'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
