#!lua flags=no-writes,allow-oom
-- Length of a queue, and when its oldest message was pushed, without moving that message.
-- KEYS: list, delayed, inflight
-- Gives {length, queue_time of the head as text, or false where it has none, delayed, in flight}.
local oldest = redis.call('LINDEX', KEYS[1], 0)
return {redis.call('LLEN', KEYS[1]),
        oldest and string.match(string.sub(oldest, -64), '"queue_time": ?([%d.]+)}$') or false,
        redis.call('ZCARD', KEYS[2]),
        redis.call('HLEN', KEYS[3])}
