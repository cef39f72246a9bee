#!lua flags=allow-oom
-- Drops the oldest dead letters, until they are within their bounds.
-- KEYS: failed, the count of those that were dropped
-- ARGV: how many may stay, in how many bytes, and when the oldest may have failed:
--   YYYYMMDDhhmmss in UTC, or '' for any time
-- Gives how many were dropped. The newest one stays, however large.
-- Ages: an entry without a time that can be read goes with the one behind it. At most 100 are looked
-- at, in one run, and mostly one is: an item of a list is loaded as a whole.
local MONTHS = {Jan = '01', Feb = '02', Mar = '03', Apr = '04', May = '05', Jun = '06', Jul = '07',
                Aug = '08', Sep = '09', Oct = '10', Nov = '11', Dec = '12'}
local function stamp(item)
  -- Ruby and we write it first, node-resque last.
  for _, part in ipairs({string.sub(item, 1, 80), string.sub(item, -200)}) do
    local said = string.match(part, '"failed_at" ?: ?"([^"]*)"')
    if said then
      local y, m, d, H, M, S = string.match(said, '^(%d%d%d%d)[/-](%d%d)[/-](%d%d)[ T](%d%d):(%d%d):(%d%d)')
      if y then
        return y .. m .. d .. H .. M .. S
      end
      local name, day, rest = string.match(said, '^%a%a%a (%a%a%a) +(%d%d?) (.*)')
      H, M, S = string.match(rest or '', '(%d%d):(%d%d):(%d%d)')
      y = string.match(rest or '', '%f[%d]%d%d%d%d%f[%D]')
      if y and H and MONTHS[name] then
        return y .. MONTHS[name] .. string.format('%02d', day) .. H .. M .. S
      end
    end
  end
end
local most, room, oldest = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3]
local length = redis.call('LLEN', KEYS[1])
local dropped = 0
local function drop(number)
  redis.call('LTRIM', KEYS[1], number, -1)
  length, dropped = length - number, dropped + number
end
if length > most then
  drop(length - most)
end
if oldest ~= '' then
  local old = 0
  for i = 0, math.min(length, 100) - 1 do
    local at = stamp(redis.call('LINDEX', KEYS[1], i))
    if at and at >= oldest then
      break
    end
    old = at and i + 1 or old
  end
  if old > 0 then
    drop(old)
  end
end
for _ = 1, 64 do
  -- Exact and without loading anything; where it is not allowed, count and age are the bounds.
  local used = length > 1 and redis.pcall('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0)
  if type(used) ~= 'number' or used <= room then
    break
  end
  -- Half of what would do if all were equally large: those left may be larger.
  drop(math.min(length - 1, math.max(1, math.floor(length * (1 - room / used) / 2))))
end
if dropped > 0 then
  redis.call('INCRBY', KEYS[2], dropped)
end
return dropped
