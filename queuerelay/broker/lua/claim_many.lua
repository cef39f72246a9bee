#!lua flags=allow-oom
-- Takes the first messages of the queues in their order, and leases each: `claim`, many at once.
-- KEYS: for each queue, in priority order: list, inflight, leases, meta
-- ARGV: lease (ms), holder (text, for whoever finds the lease expired), a token for each message
-- Gives {Redis time (ms), number of the queue from 1, message, number, message...}; the messages
-- have the tokens in this order.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local meta = string.format('%.0f', now) .. ' ' .. ARGV[2]
local found, nth = {now}, 3
for i = 1, #KEYS, 4 do
  if nth > #ARGV then
    break
  end
  for _, message in ipairs(redis.call('LPOP', KEYS[i], #ARGV - nth + 1) or {}) do
    local token = ARGV[nth]
    nth = nth + 1
    redis.call('HSET', KEYS[i + 1], token, message)
    redis.call('ZADD', KEYS[i + 2], now + tonumber(ARGV[1]), token)
    redis.call('HSET', KEYS[i + 3], token, meta)
    found[#found + 1] = (i + 3) / 4
    found[#found + 1] = message
  end
end
return found
