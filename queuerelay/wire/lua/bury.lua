#!lua flags=allow-oom
-- Takes a silent node off the list. Its inbox gets a last term instead of vanishing at once: a
-- relay that was only cut off for a while still finds its replies.
-- KEYS: nodes, inbox:<id>, and where there is a legacy list: legacy:<id>, that list
-- ARGV: id, silence that means death (ms), last term of the inbox (s)
-- Gives 1, or 0 where the node has spoken in the meantime.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local beat = redis.call('ZSCORE', KEYS[1], ARGV[1])
if beat and tonumber(beat) > now - tonumber(ARGV[2]) then
  return 0
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[3], 'NX')
-- Old replies that it had taken but not sorted go back for another relay to sort.
if KEYS[4] then
  while redis.call('LMOVE', KEYS[3], KEYS[4], 'RIGHT', 'LEFT') do end
end
return 1
