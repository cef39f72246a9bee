#!lua flags=allow-oom
-- Raises a fence: of what it guards, only the connection with this token can change anything now.
-- KEYS: fence
-- ARGV: token of the connection, seconds that the fence is kept
-- Gives 1 where the fence was there, else 0; then its fields: the numbers of pushes that were
-- executed and not heard of, and "token".
local was = redis.call('HSET', KEYS[1], 'token', ARGV[1]) == 0 and 1 or 0
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {was, unpack(redis.call('HKEYS', KEYS[1]))}
