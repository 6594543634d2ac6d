-- Deletes a channel's messages that are older than the retention, or all of them.
--
-- KEYS[1] index of the channel's messages
-- KEYS[2] journal of the channel
-- KEYS[3] head: the id of the journal's last entry
-- KEYS[4…] three keys for each message: counts, actions, removed
-- KEYS, at last, in any order: who keys of ranked messages; what is missing is answered
--
-- ARGV[1] life of the journal, in seconds
-- ARGV[2] retention, in seconds (-1: every message is too old)
-- ARGV[3] a message with more actions is ranked: it has a who key for each tally
-- ARGV[4…] the message timetoken of each message
--
-- Answers { how many messages were deleted, who keys that are needed: then call it once more }.
-- A message is deleted if it is in the index, and old enough (as in apply.lua),
-- and if all of its who keys are there.
--
-- Writes one journal entry. Its changes are
--   expired applied <message timetoken> 0 <message timetoken> <empty field>
-- This means: every count of the message is gone.
-- Then publishes a hint, as apply.lua does.

local messages, journal, head_key = KEYS[1], KEYS[2], KEYS[3]
local journal_seconds, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = tonumber(redis.call('TIME')[1])
local oldest = string.format('%d0000000', now - retention)
local ranked_above = tonumber(ARGV[3])
local MOST_MISSING = 1000 -- if more are, the messages that follow wait for the next call
local function is_expired(timetoken)
  return retention < 0 or (#timetoken == #oldest and timetoken < oldest)
end

local head = redis.call('GET', head_key) or '0-0'
redis.call('XLEN', journal)

local passed, missing = {}, {}
for number = 1, #KEYS do passed[KEYS[number]] = true end

-- Answers the fields of a hash. If another program wrote its key, it has none.
local function fields_of(answer)
  return answer.err and {} or answer
end

-- Answers how the who key of a tally ends: there, the value is encoded, too.
local function encode(tally)
  local colon = string.find(tally, ':', 1, true) or 0
  local value = string.gsub(string.sub(tally, colon + 1), '[%%:]', { ['%'] = '%25', [':'] = '%3A' })
  return string.sub(tally, 1, colon) .. value
end

-- Answers the tallies of a message that is ranked, or that eviction has made smaller.
local function ranked_tallies(counts_key, actions_key)
  local counts, tallies, total = fields_of(redis.pcall('HGETALL', counts_key)), {}, 0
  for at = 1, #counts, 2 do
    tallies[encode(counts[at])] = true
    total = total + (tonumber(counts[at + 1]) or 0)
  end
  local size = redis.pcall('HLEN', actions_key)
  size = type(size) == 'number' and size or 0
  if math.max(size, total) <= ranked_above then return {} end
  if size > total then -- counts are lost
    for _, field in ipairs(fields_of(redis.pcall('HKEYS', actions_key))) do
      local tally = string.match(field, '^[^:]*:[^:]*')
      if tally then tallies[tally] = true end
    end
  end
  return tallies
end

-- Answers the who keys of a message; nil if one of them is missing.
local function who_keys(counts_key, actions_key, timetoken)
  local prefix = string.sub(actions_key, 1, -#timetoken - 9) .. 'who:' .. timetoken .. ':'
  local keys, is_whole = {}, true
  for tally in pairs(ranked_tallies(counts_key, actions_key)) do
    local key = prefix .. tally
    keys[#keys + 1] = key
    if not passed[key] then
      is_whole = false
      missing[#missing + 1] = key
    end
  end
  return is_whole and keys or nil
end

local doomed, changes = {}, {}
for number = 1, #ARGV - 3 do
  if #missing > MOST_MISSING then break end
  local timetoken, key = ARGV[3 + number], 1 + 3 * number
  local is_doomed = is_expired(timetoken) and redis.call('ZSCORE', messages, timetoken)
  local ranking = is_doomed and who_keys(KEYS[key], KEYS[key + 1], timetoken)
  if ranking then
    doomed[#doomed + 1] = { key = key, timetoken = timetoken, ranking = ranking }
    changes[#changes + 1] = #changes / 2
    changes[#changes + 1] = 'expired applied ' .. timetoken .. ' 0 ' .. timetoken .. ' '
  end
end

-- The journal comes first, as in apply.lua. A full Redis refuses a first command that needs memory,
-- and this script frees some. So the very first command needs none.
local id
if #doomed > 0 then
  redis.call('EXPIRE', journal, journal_seconds)
  local minimum = string.format('%d', (now - journal_seconds) * 1000)
  id = redis.call('XADD', journal, 'MINID', '~', minimum, '*', 'after', head, 'origin', 'sweep', unpack(changes))
  redis.call('SET', head_key, id)
  redis.call('EXPIRE', journal, journal_seconds)
end

for _, message in ipairs(doomed) do
  local key = message.key
  redis.call('UNLINK', KEYS[key], KEYS[key + 1], KEYS[key + 2])
  for _, who in ipairs(message.ranking) do redis.call('UNLINK', who) end
  redis.call('ZREM', messages, message.timetoken)
end

-- A user who may not publish is no error, as in apply.lua.
if id then
  local namespace, channel = string.match(head_key, '^([^:]*):{(.*)}:head$')
  redis.pcall('PUBLISH', namespace .. ':changed', channel .. ' ' .. id)
end

return { #doomed, missing }
