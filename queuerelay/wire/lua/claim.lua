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
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local paused = redis.pcall('HLEN', KEYS[1])
if type(paused) == 'table' then
  -- Nobody knows which queues are paused.
  return wrong(paused, {KEYS[1], 'hash'})
end
paused = paused > 0
local found, nth, meta, problem = {now}, 3 + (#KEYS - 1) / 4, nil, nil
local function lease(i, messages)
  local expiry = now + tonumber(ARGV[1])
  for j = 1, #messages do
    local token = ARGV[nth + j - 1]
    redis.call('HSET', KEYS[i + 1], token, messages[j])
    redis.call('ZADD', KEYS[i + 2], expiry, token)
    redis.call('HSET', KEYS[i + 3], token, meta)
  end
end
for i = 2, #KEYS, 4 do
  if nth > #ARGV then
    break
  end
  local number = (i + 2) / 4
  local open = not paused or redis.call('HEXISTS', KEYS[1], ARGV[2 + number]) == 0
  local messages = open and redis.pcall('LPOP', KEYS[i], #ARGV - nth + 1)
  if messages then
    meta = meta or string.format('%.0f', now) .. ' ' .. ARGV[2]
    local leased, why = not messages.err, messages
    if leased then
      leased, why = pcall(lease, i, messages)
    end
    if leased then
      for j = 1, #messages do
        found[#found + 1] = number
        found[#found + 1] = messages[j]
      end
      nth = nth + #messages
    else
      for j = #messages, 1, -1 do
        redis.call('LPUSH', KEYS[i], messages[j])
        local token = ARGV[nth + j - 1]
        redis.pcall('HDEL', KEYS[i + 1], token)
        redis.pcall('ZREM', KEYS[i + 2], token)
        redis.pcall('HDEL', KEYS[i + 3], token)
      end
      problem = problem or wrong(why, {
        KEYS[i], 'list', KEYS[i + 1], 'hash', KEYS[i + 2], 'zset', KEYS[i + 3], 'hash'})
    end
  end
end
return #found == 1 and problem or found
