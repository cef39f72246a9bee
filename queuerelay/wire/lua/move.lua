#!lua flags=allow-oom
-- Moves items from one list's head to another's tail, in order.
-- KEYS: from, to
-- ARGV: how many at most
local function act()
  -- What is no list fails here, before the first change: a script is not undone.
  redis.call('LLEN', KEYS[2])
  local items = redis.call('LPOP', KEYS[1], ARGV[1])
  if items then
    for _, item in ipairs(items) do
      redis.call('RPUSH', KEYS[2], item)
    end
    return #items
  end
  return 0
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'list', 'list'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
