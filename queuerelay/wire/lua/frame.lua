#!lua flags=allow-oom
-- Pushes a part of a streamed reply while its lease is held and its client is there.
-- KEYS: inflight, list for the reply, the mark of a client that left, the count of bytes taken
-- ARGV: token, frame ('' to push nothing), seconds after which an unread inbox vanishes
-- Gives {1, bytes taken}; {0, 0} where the token no longer held the message, {2, 0} where the
-- client has left: then nothing is pushed.
local function act()
  if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
    return {0, 0}
  end
  if redis.call('EXISTS', KEYS[3]) == 1 then
    return {2, 0}
  end
  local taken = tonumber(redis.call('GET', KEYS[4])) or 0
  if ARGV[2] ~= '' then
    redis.call('RPUSH', KEYS[2], ARGV[2])
    redis.call('EXPIRE', KEYS[2], ARGV[3], 'NX')
  end
  return {1, taken}
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'list', false, 'string'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
