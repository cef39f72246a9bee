#!lua flags=allow-oom
-- Drops items from the head of a list, for the connection that reads it now and no earlier one.
-- KEYS: list, fence
-- ARGV: token of the connection, how many
-- An error that begins with FENCED, and nothing dropped, where another connection has raised the
-- fence since: what this one had seen of the list may not be its head any more.
local function act()
  if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then
    return redis.error_reply('FENCED another connection reads ' .. KEYS[1])
  end
  return redis.call('LTRIM', KEYS[1], ARGV[2], -1)
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'list', 'hash'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
