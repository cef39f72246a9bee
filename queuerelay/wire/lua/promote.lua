#!lua flags=allow-oom
-- Puts messages that are due at the head of their queues: they have waited longest.
-- KEYS: for each queue: delayed, list
-- ARGV: how many at most
-- Gives how many it was. A queue with a key of the wrong type keeps its messages, and the others go
-- on; where nothing else is due, the answer is an error that names that key.
local function wrong(problem, names)
  for i = 1, #names, 2 do
    local is = redis.call('TYPE', names[i]).ok
    if is ~= 'none' and is ~= names[i + 1] then
      local text = 'WRONGTYPE %s is a %s, expected a %s'
      return redis.error_reply(string.format(text, names[i], is, names[i + 1]))
    end
  end
  return problem
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most, moved, problem = tonumber(ARGV[1]), 0, nil
for i = 1, #KEYS, 2 do
  local due = redis.pcall('ZRANGEBYSCORE', KEYS[i], '-inf', now, 'LIMIT', 0, most - moved)
  -- What is no list fails here, before anything was taken out: a script is not undone.
  local length = redis.pcall('LLEN', KEYS[i + 1])
  if due.err or type(length) == 'table' then
    local why = due.err and due or length
    problem = problem or wrong(why, {KEYS[i], 'zset', KEYS[i + 1], 'list'})
  else
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
end
return moved == 0 and problem or moved
