#!lua flags=allow-oom
-- Drops items from the head of a list, for the connection that reads it now and no earlier one.
-- KEYS: list, fence
-- ARGV: token of the connection, how many
-- An error that begins with FENCED, and nothing dropped, where another connection has raised the
-- fence since: what this one had seen of the list may not be its head any more.
if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then
  return redis.error_reply('FENCED another connection reads ' .. KEYS[1])
end
return redis.call('LTRIM', KEYS[1], ARGV[2], -1)
