-- Makes the who keys of a message what they must be, as far as sizes show it.
-- Eviction may have deleted them, or what they are derived from; an older worker never wrote them.
-- It changes no count, so the journal gets nothing.
--
-- KEYS[1] counts of the message
-- KEYS[2] actions of the message
-- KEYS[3…] who keys, in any order; what is missing is answered
--
-- ARGV[1] the message timetoken
-- ARGV[2] a message with more actions is ranked
--
-- Answers the who keys that are needed. If there are some, nothing is written.
-- If the message is ranked, keys that have another size than the counts say are written anew.
-- If only its counts are those of a ranked message, its keys are deleted.

local call, find, sub = redis.call, string.find, string.sub
local counts_key, actions_key = KEYS[1], KEYS[2]
local MOST_ARGUMENTS = 2000 -- of one command

local ranked_above, total = tonumber(ARGV[2]), 0
local size, counts = call('HLEN', actions_key), call('HGETALL', counts_key)
for at = 2, #counts, 2 do total = total + (tonumber(counts[at]) or 0) end
if math.max(size, total) <= ranked_above then return {} end

local prefix = sub(actions_key, 1, -#ARGV[1] - 9) .. 'who:' .. ARGV[1] .. ':'
local passed, missing = {}, {}
for number = 3, #KEYS do passed[KEYS[number]] = true end

-- Who keys end as fields of actions begin: there, the value is encoded, too.
local function encode(tally)
  local colon = find(tally, ':', 1, true) or 0
  local value = string.gsub(sub(tally, colon + 1), '[%%:]', { ['%'] = '%25', [':'] = '%3A' })
  return sub(tally, 1, colon) .. value
end

local function is_right(key, count)
  return size > ranked_above and call('TYPE', key).ok == 'zset' and call('ZCARD', key) == tonumber(count)
end

-- tally → its key, of what must be written
local wrong = {}
for at = 1, #counts, 2 do
  local tally = encode(counts[at])
  local key = prefix .. tally
  if not passed[key] then
    missing[#missing + 1] = key
  elseif not is_right(key, counts[at + 1]) then
    wrong[tally] = key
  end
end
if #missing > 0 then return missing end
if not next(wrong) then return {} end

-- As in apply.lua.
local function score_of(timetoken)
  local billions, rest = tonumber('0' .. sub(timetoken, 1, -10)), tonumber('0' .. sub(timetoken, -9))
  return string.format('%.0f', (billions - 17000000) * 1e9 + rest)
end

local commands = {}
for tally, key in pairs(wrong) do
  call('UNLINK', key)
  commands[tally] = { 'ZADD', key }
end
if size <= ranked_above then return {} end
local actions = call('HGETALL', actions_key)
for at = 1, #actions, 2 do
  local tally, user = string.match(actions[at], '^([^:]*:[^:]*):(.*)$')
  local command = tally and commands[tally]
  if command then
    command[#command + 1] = score_of(actions[at + 1])
    command[#command + 1] = user
    if #command > MOST_ARGUMENTS then
      call(unpack(command))
      commands[tally] = { 'ZADD', wrong[tally] }
    end
  end
end
for _, command in pairs(commands) do
  if #command > 2 then call(unpack(command)) end
end
return {}
