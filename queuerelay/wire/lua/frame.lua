#!lua flags=allow-oom
-- Pushes a part of a streamed reply while its lease is held and its client is there.
-- KEYS: inflight, list for the reply, the mark of a client that left, the count of bytes taken
-- ARGV: token, frame ('' to push nothing), seconds after which an unread inbox vanishes
-- Gives {1, bytes taken}; {0, 0} where the token no longer held the message, {2, 0} where the
-- client has left: then nothing is pushed.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return {0, 0}
end
if redis.call('EXISTS', KEYS[3]) == 1 then
  return {2, 0}
end
if ARGV[2] ~= '' then
  redis.call('RPUSH', KEYS[2], ARGV[2])
  redis.call('EXPIRE', KEYS[2], ARGV[3], 'NX')
end
return {1, tonumber(redis.call('GET', KEYS[4])) or 0}
