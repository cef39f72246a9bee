#!lua flags=allow-oom
-- Takes the first messages of the queues in their order, those of paused ones left out, and leases
-- each: one for each token.
-- allow-oom: taking a message frees what it adds, and at maxmemory it is the only way out.
-- KEYS: gate, and for each queue, in priority order: list, inflight, leases, meta
-- ARGV: lease (ms), holder (text, for whoever finds the lease expired), the name of each queue, as
--   the gate has it, and a token for each message
-- Gives {Redis time (ms), number of the queue from 1, message, number, message...}; the messages
-- have the tokens in this order.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local paused = redis.call('HLEN', KEYS[1]) > 0
local found, nth, meta = {now}, 3 + (#KEYS - 1) / 4, nil
for i = 2, #KEYS, 4 do
  if nth > #ARGV then
    break
  end
  local number = (i + 2) / 4
  local open = not paused or redis.call('HEXISTS', KEYS[1], ARGV[2 + number]) == 0
  local messages = open and redis.call('LPOP', KEYS[i], #ARGV - nth + 1)
  if messages then
    meta = meta or string.format('%.0f', now) .. ' ' .. ARGV[2]
    for _, message in ipairs(messages) do
      local token = ARGV[nth]
      nth = nth + 1
      redis.call('HSET', KEYS[i + 1], token, message)
      redis.call('ZADD', KEYS[i + 2], now + tonumber(ARGV[1]), token)
      redis.call('HSET', KEYS[i + 3], token, meta)
      found[#found + 1] = number
      found[#found + 1] = message
    end
  end
end
return found
