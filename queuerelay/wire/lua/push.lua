#!lua
-- Appends messages to a list, for the connection that pushes now and no earlier one, and notes that
-- it was done: after a lost connection the note tells what was executed.
-- KEYS: list, fence
-- ARGV: token of the connection, number of this push, how many notes nobody needs any more, these,
-- the messages
-- Gives the length of the list. An error that begins with FENCED, and nothing pushed, where another
-- connection has raised the fence since.
local function act()
  if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then
    return redis.error_reply('FENCED another connection pushes to ' .. KEYS[1])
  end
  local notes = tonumber(ARGV[3])
  if #ARGV < 4 + notes then
    return redis.error_reply('ERR push.lua: no message was given')
  end
  local length
  -- In steps: a call takes some thousand arguments at most. What is no list fails in the first one,
  -- before anything was changed: a script is not undone.
  for first = 4 + notes, #ARGV, 1000 do
    length = redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
  end
  redis.call('HSET', KEYS[2], ARGV[2], '')
  if notes > 0 then
    redis.call('HDEL', KEYS[2], unpack(ARGV, 4, 3 + notes))
  end
  return length
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
