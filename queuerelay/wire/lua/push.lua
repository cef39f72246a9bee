#!lua
-- Appends messages to a list, for the connection that pushes now and no earlier one, and notes that
-- it was done: after a lost connection the note tells what was executed.
-- KEYS: list, fence
-- ARGV: token of the connection, number of this push, how many notes nobody needs any more, these,
-- the messages
-- Gives the length of the list. An error that begins with FENCED, and nothing pushed, where another
-- connection has raised the fence since.
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then
  return redis.error_reply('FENCED another connection pushes to ' .. KEYS[1])
end
local notes = tonumber(ARGV[3])
if #ARGV < 4 + notes then
  return redis.error_reply('ERR push.lua: no message was given')
end
-- What is no list fails here, before the first change: a script is not undone.
local length = redis.call('LLEN', KEYS[1])
if notes > 0 then
  redis.call('HDEL', KEYS[2], unpack(ARGV, 4, 3 + notes))
end
redis.call('HSET', KEYS[2], ARGV[2], '')
-- In steps: a call takes some thousand arguments at most.
for first = 4 + notes, #ARGV, 1000 do
  length = redis.call('RPUSH', KEYS[1], unpack(ARGV, first, math.min(first + 999, #ARGV)))
end
return length
