#!lua flags=allow-oom
-- Takes the first messages of the queues in their order, those of paused ones left out, and leases
-- each: one for each token.
-- allow-oom: taking a message frees what it adds, and at maxmemory it is the only way out.
-- KEYS: gate, and for each queue, in priority order: list, inflight, leases, meta
-- ARGV: lease (ms), holder (text, for whoever finds the lease expired), the name of each queue, as
--   the gate has it, and a token for each message
-- Gives {Redis time (ms), number of the queue from 1, message, number, message...}; the messages
-- have the tokens in this order.
-- A queue with a key of the wrong type keeps its messages, and the others go on; where there is
-- nothing else to take, the answer is an error that names that key. A script is not undone, so what
-- was popped is put back here. Types are looked at only then: to ask for them each time would cost
-- four calls for each queue, and this script runs for every message.
local function wrong(problem, names)
  for i = 1, #names, 2 do
    local is = redis.call('TYPE', names[i]).ok
    if is ~= 'none' and is ~= names[i + 1] then
      local text = 'WRONGTYPE %s is a %s, expected a %s'
      return redis.error_reply(string.format(text, names[i], is, names[i + 1]))
    end
  end
  return type(problem) == 'table' and problem or redis.error_reply('ERR ' .. tostring(problem))
end
local pcall = redis.pcall
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local paused = pcall('HLEN', KEYS[1])
if type(paused) == 'table' then
  -- Nobody knows which queues are paused.
  return wrong(paused, {KEYS[1], 'hash'})
end
paused = paused > 0
local found, nth, meta, problem = {now}, 3 + (#KEYS - 1) / 4, nil, nil
for i = 2, #KEYS, 4 do
  if nth > #ARGV then
    break
  end
  local number = (i + 2) / 4
  local open = not paused or pcall('HEXISTS', KEYS[1], ARGV[2 + number]) == 0
  local messages = open and pcall('LPOP', KEYS[i], #ARGV - nth + 1)
  if messages then
    meta = meta or string.format('%.0f', now) .. ' ' .. ARGV[2]
    local expiry, why, before = now + ARGV[1], messages.err and messages, #found
    for j = 1, #messages do
      local token = ARGV[nth + j - 1]
      local one = pcall('HSET', KEYS[i + 1], token, messages[j])
      local two = pcall('ZADD', KEYS[i + 2], expiry, token)
      local three = pcall('HSET', KEYS[i + 3], token, meta)
      why = type(one) == 'table' and one or type(two) == 'table' and two
        or type(three) == 'table' and three
      if why then
        break
      end
      found[before + 2 * j - 1] = number
      found[before + 2 * j] = messages[j]
    end
    if not why then
      nth = nth + #messages
    else
      for j = #messages, 1, -1 do
        local token = ARGV[nth + j - 1]
        redis.call('LPUSH', KEYS[i], messages[j])
        pcall('HDEL', KEYS[i + 1], token)
        pcall('ZREM', KEYS[i + 2], token)
        pcall('HDEL', KEYS[i + 3], token)
        found[before + 2 * j], found[before + 2 * j - 1] = nil, nil
      end
      problem = problem or wrong(why, {
        KEYS[i], 'list', KEYS[i + 1], 'hash', KEYS[i + 2], 'zset', KEYS[i + 3], 'hash'})
    end
  end
end
return #found == 1 and problem or found
