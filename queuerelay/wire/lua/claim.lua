#!lua flags=allow-oom
-- Takes the first message of the first queue that has one and is not paused, and leases it.
-- allow-oom: taking a message frees what it adds, and at maxmemory it is the only way out.
-- KEYS: gate, and for each queue, in priority order: list, inflight, leases, meta
-- ARGV: token, lease (ms), holder (text, for whoever finds the lease expired), and the name of each
--   queue, as the gate has it
-- Gives {number of the queue from 1, message, Redis time (ms)}, or false.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local paused = redis.call('HLEN', KEYS[1]) > 0
for i = 2, #KEYS, 4 do
  local number = (i + 2) / 4
  local open = not paused or redis.call('HEXISTS', KEYS[1], ARGV[3 + number]) == 0
  local message = open and redis.call('LPOP', KEYS[i])
  if message then
    redis.call('HSET', KEYS[i + 1], ARGV[1], message)
    redis.call('ZADD', KEYS[i + 2], now + tonumber(ARGV[2]), ARGV[1])
    redis.call('HSET', KEYS[i + 3], ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[3])
    return {number, message, now}
  end
end
return false
