-- Reads a run's log in order: what its beginning alone still has, then the log. Agents may write into both, and a
-- hostile one what it likes: no word is longer than it may be, and no reply much larger than it is to be.
-- KEYS: 1 log, 2 beginning; STREAMs, as append_log writes them
-- ARGV: 1 the id after which to begin; 2 how many lines at most; 3 how many bytes of text, about; 4 the longest line
-- Returns {id, phase, text, at, number, attempt, ...}.
local found, lines, bytes, longest = {}, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local function read(key, last)
  local after = ARGV[1]
  while lines > 0 and bytes > 0 do
    local entries = redis.call('XRANGE', key, '(' .. after, last, 'COUNT', math.min(lines, 100))
    if #entries == 0 then return end
    for _, entry in ipairs(entries) do
      if lines < 1 or bytes < 1 then return end
      local line = {}
      for i = 1, #entry[2], 2 do line[entry[2][i]] = entry[2][i + 1] end
      local text = string.sub(line.text or '', 1, longest)
      table.insert(found, entry[1])
      table.insert(found, string.sub(line.phase or '', 1, 20))
      table.insert(found, text)
      for _, word in ipairs({line.at or '', line.number or '', line.attempt or ''}) do
        table.insert(found, string.sub(word, 1, 20))
      end
      after, lines, bytes = entry[1], lines - 1, bytes - #text - 100
    end
  end
end

local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
read(KEYS[2], first and '(' .. first[1] or '+')
read(KEYS[1], '+')
return found
