#!lua flags=allow-oom
-- Pauses a queue; from here on no claim takes from it. One that is paused stays as it is.
-- allow-oom: a full Redis is a reason to pause. It adds one small field for each queue.
-- KEYS: gate
-- ARGV: queue, who pauses it (a JSON text)
-- Gives 1, or 0 where it was paused.
local time = redis.call('TIME')
local since = string.format('%s.%03d', time[1], math.floor(time[2] / 1000))
return redis.call('HSETNX', KEYS[1], ARGV[1], '{"since":' .. since .. ',"by":' .. ARGV[2] .. '}')
