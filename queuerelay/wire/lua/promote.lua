#!lua flags=allow-oom
-- Puts messages that are due at the head of their queues: they have waited longest.
-- KEYS: for each queue: delayed, list
-- ARGV: how many at most
-- Gives how many it was.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most, moved = tonumber(ARGV[1]), 0
for i = 1, #KEYS, 2 do
  local due = redis.call('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, most - moved)
  -- What is no list fails here, before anything was taken out: a script is not undone.
  redis.call('LLEN', KEYS[i + 1])
  -- Backwards, so that the one due first ends up foremost.
  for j = #due, 1, -1 do
    redis.call('ZREM', KEYS[i], due[j])
    local space = string.find(due[j], ' ', 1, true)
    redis.call('LPUSH', KEYS[i + 1], string.sub(due[j], (space or 0) + 1))
  end
  moved = moved + #due
  if moved >= most then
    break
  end
end
return moved
