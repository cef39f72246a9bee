#!lua flags=allow-oom
-- Prolongs leases that are still held; one that was lost stays lost.
-- KEYS: inflight, leases, meta
-- ARGV: lease (ms), token...
-- Gives one number for each token: 1 prolonged, 0 no longer held.
local time = redis.call('TIME')
local expiry = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
local held = {}
for i = 2, #ARGV do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], expiry, ARGV[i])
    held[#held + 1] = 1
  else
    held[#held + 1] = 0
  end
end
return held
