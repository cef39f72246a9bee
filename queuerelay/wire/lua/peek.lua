#!lua flags=no-writes,allow-oom
-- The items of a list from a place on, bounded in count and in bytes.
-- KEYS: list
-- ARGV: place of the first, how many at most, bytes after which no other item is added, bytes of an
-- item above which it is not given
-- Gives the items in order; in place of one that is too large {its bytes, its node_id or ""}. The
-- first is always among them.
local function act()
  local first, most, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
  local largest = tonumber(ARGV[4])

  local function node_id(item)
    local shape = '"node_id"%s*:%s*"(%x+%-%x+)"'
    -- A pattern is slow, and the id is at either end of nearly every reply.
    local id = string.match(item:sub(1, 1024), shape) or string.match(item:sub(-1024), shape)
    local at = not id and string.find(item, '"node_id"', 1, true)
    return id or at and string.match(item:sub(at, at + 1024), '^' .. shape) or ''
  end

  local found = {}
  while #found < most do
    -- In small steps: what is not given is not loaded either, but for the rest of one step.
    local step = math.min(16, most - #found)
    local items = redis.call('LRANGE', KEYS[1], first + #found, first + #found + step - 1)
    for _, item in ipairs(items) do
      if #item > largest then
        found[#found + 1] = {#item, node_id(item)}
      else
        if room < #item and #found > 0 then
          return found
        end
        room = room - #item
        found[#found + 1] = item
      end
    end
    if #items < step then
      return found
    end
  end
  return found
end
local done, answer = pcall(act)
if done then
  return answer
end
-- Types are looked at only after a failure: that costs nothing where all is well.
local expected = {'list'}
for i = 1, #KEYS do
  local is = redis.call('TYPE', KEYS[i]).ok
  if expected[i] and is ~= 'none' and is ~= expected[i] then
    local text = 'WRONGTYPE %s is a %s, expected a %s'
    return redis.error_reply(string.format(text, KEYS[i], is, expected[i]))
  end
end
return type(answer) == 'table' and answer or redis.error_reply('ERR ' .. tostring(answer))
