#!lua flags=allow-oom
-- Takes one dead letter out of the list and, with a queue, puts its message there. By its bytes
-- and not by its place, which changes; whoever comes second finds nothing.
-- allow-oom: it frees about what it adds.
-- KEYS: failed, and to put the message back: list, queues
-- ARGV: entry, and with a queue: message, name of the queue
-- Gives 1, or 0 where no such entry was there.
local function act()
  if KEYS[2] then
    -- A script that fails halfway is not undone: what is no list fails here, before the first change.
    redis.call('LLEN', KEYS[2])
    redis.call('SCARD', KEYS[3])
  end
  if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
    return 0
  end
  if KEYS[2] then
    redis.call('SADD', KEYS[3], ARGV[3])
    redis.call('RPUSH', KEYS[2], ARGV[2])
  end
  return 1
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'list', 'list', 'set'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
