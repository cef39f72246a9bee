#!lua flags=allow-oom
-- Raises a fence: of what it guards, only the connection with this token can change anything now.
-- KEYS: fence
-- ARGV: token of the connection, seconds that the fence is kept
-- Gives 1 where the fence was there, else 0; then its fields: the numbers of pushes that were
-- executed and not heard of, and "token".
local function act()
  local was = redis.call('HSET', KEYS[1], 'token', ARGV[1]) == 0 and 1 or 0
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  return {was, unpack(redis.call('HKEYS', KEYS[1]))}
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
