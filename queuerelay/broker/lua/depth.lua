#!lua flags=no-writes,allow-oom
-- Length of a queue, and when its oldest message was pushed, without moving that message.
-- KEYS: list
-- Gives {length, queue_time of the head as text, or false where it has none}.
local oldest = redis.call('LINDEX', KEYS[1], 0)
if not oldest then
  return {0, false}
end
return {redis.call('LLEN', KEYS[1]),
        string.match(string.sub(oldest, -64), '"queue_time": ?([%d.]+)}$') or false}
