-- Deletes a channel's messages that are older than the retention, or all of them.
--
-- KEYS[1] index of the channel's messages
-- KEYS[2] journal of the channel
-- KEYS[3] head: the id of the journal's last entry
-- KEYS[4…] three keys for each message: counts, actions, removed
--
-- ARGV[1] life of the journal, in seconds
-- ARGV[2] retention, in seconds (-1: every message is too old)
-- ARGV[3…] the message timetoken of each message
--
-- Answers how many messages were deleted.
-- A message is deleted if it is in the index, and old enough (as in apply.lua).
--
-- Writes one journal entry. Its changes are
--   expired applied <message timetoken> 0 <message timetoken> <empty field>
-- This means: every count of the message is gone.
-- Then publishes a hint, as apply.lua does.

local messages, journal, head_key = KEYS[1], KEYS[2], KEYS[3]
local journal_seconds, retention = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = tonumber(redis.call('TIME')[1])
local oldest = string.format('%d0000000', now - retention)
local function is_expired(timetoken)
  return retention < 0 or (#timetoken == #oldest and timetoken < oldest)
end

local head = redis.call('GET', head_key) or '0-0'
redis.call('XLEN', journal)

local doomed, changes = {}, {}
for number = 1, #ARGV - 2 do
  local timetoken = ARGV[2 + number]
  if is_expired(timetoken) and redis.call('ZSCORE', messages, timetoken) then
    doomed[#doomed + 1] = number
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

for _, number in ipairs(doomed) do
  local key = 1 + 3 * number
  redis.call('UNLINK', KEYS[key], KEYS[key + 1], KEYS[key + 2])
  redis.call('ZREM', messages, ARGV[2 + number])
end

-- A user who may not publish is no error, as in apply.lua.
if id then
  local namespace, channel = string.match(head_key, '^([^:]*):{(.*)}:head$')
  redis.pcall('PUBLISH', namespace .. ':changed', channel .. ' ' .. id)
end

return #doomed
