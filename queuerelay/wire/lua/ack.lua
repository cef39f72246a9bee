#!lua flags=allow-oom
-- Ends a lease because the work is done; the reply, if any, goes out in the same step.
-- KEYS: inflight, leases, meta, and the list for the reply where there is one
-- ARGV: token, reply, seconds after which an unread reply list vanishes, and how many replies that
--   list keeps: 0 for an inbox, which loses none, and has its term from its relay
-- Gives 1, or 0 where the token no longer held the message: then nothing is replied.
-- A script is not undone, so what cannot be done must fail before the message is let go. The reply is
-- pushed first, and taken back where it may not go out: to look at its list before would cost every
-- reply one more call.
local call, pushed = redis.call, nil
local function act()
  pushed = KEYS[4] and call('RPUSH', KEYS[4], ARGV[2])
  call('HDEL', KEYS[3], ARGV[1])
  call('ZREM', KEYS[2], ARGV[1])
  if call('HDEL', KEYS[1], ARGV[1]) == 0 then
    if pushed then
      call('RPOP', KEYS[4])
    end
    return 0
  end
  if pushed then
    if ARGV[4] == '0' then
      call('EXPIRE', KEYS[4], ARGV[3], 'NX')
    else
      call('LTRIM', KEYS[4], '-' .. ARGV[4], -1)
      call('EXPIRE', KEYS[4], ARGV[3])
    end
  end
  return 1
end
local done, answer = pcall(act)
if done then
  return answer
end
if pushed then
  call('RPOP', KEYS[4])
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'hash', 'zset', 'hash', 'list'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
