#!lua flags=no-writes,allow-oom
-- A part of the dead letters, bounded in count and in bytes.
-- KEYS: failed
-- ARGV: how many to leave out, how many at most, 1 for newest first, bytes after which no other
--   entry is added, and how many bytes of one entry are given: 0 for all
-- Gives {length of the list, entry...}; the first entry is always there. One that is larger than what
-- is given of it is {size, its beginning, its end}, an eighth of that and the rest.
local function act()
  local total = redis.call('LLEN', KEYS[1])
  local first, most, room = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
  local shown = tonumber(ARGV[5] or 0)
  local found = {total}
  -- Redis stands still meanwhile: 16 MiB are loaded for people, and what comes first.
  local loaded = 0
  -- An item of a list is loaded as a whole: one at a time, where they may be large.
  local longest = shown > 0 and 1 or 16
  while #found <= most do
    -- In small steps: what is not given is not loaded either, but for the rest of one step.
    local from, step = first + #found - 1, math.min(longest, most + 1 - #found)
    local items
    if ARGV[3] == '1' then
      items = redis.call('LRANGE', KEYS[1], -from - step, -from - 1)
    else
      items = redis.call('LRANGE', KEYS[1], from, from + step - 1)
    end
    for i = 1, #items do
      local item = items[ARGV[3] == '1' and #items + 1 - i or i]
      local given = #item
      loaded = loaded + given
      if shown > 0 and given > shown then
        given = shown
        item = {#item, string.sub(item, 1, shown / 8), string.sub(item, shown / 8 - shown)}
      end
      if (room < given or shown > 0 and loaded > 16777216) and #found > 1 then
        return found
      end
      room = room - given
      found[#found + 1] = item
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
