#!lua flags=allow-oom
-- Moves items from one list's head to another's tail, in order.
-- KEYS: from, to
-- ARGV: how many at most
local items = redis.call('LPOP', KEYS[1], ARGV[1])
if items then
  for _, item in ipairs(items) do
    redis.call('RPUSH', KEYS[2], item)
  end
  return #items
end
return 0
