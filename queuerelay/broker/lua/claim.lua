#!lua flags=allow-oom
-- Takes the first message of the first queue that has one, and leases it.
-- allow-oom: taking a message frees what it adds, and at maxmemory it is the only way out.
-- KEYS: for each queue, in priority order: list, inflight, leases, meta
-- ARGV: token, lease (ms), holder (text, for whoever finds the lease expired)
-- Gives {number of the queue from 1, message, Redis time (ms)}, or false.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 1, #KEYS, 4 do
  local message = redis.call('LPOP', KEYS[i])
  if message then
    redis.call('HSET', KEYS[i + 1], ARGV[1], message)
    redis.call('ZADD', KEYS[i + 2], now + tonumber(ARGV[2]), ARGV[1])
    redis.call('HSET', KEYS[i + 3], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[3])
    return {(i + 3) / 4, message, now}
  end
end
return false
