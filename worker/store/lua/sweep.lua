-- Delete a channel's messages that are older than the retention, and journal it.
--
-- KEYS[1] messages   KEYS[2] journal   KEYS[3] head
-- KEYS[4…]           for each message, three: counts, actions, removed
--
-- ARGV[1] life of the journal, seconds   ARGV[2] retention, seconds   ARGV[3…] for each message, its message timetoken
--
-- Answers how many were deleted: those of them that are in the index and old enough (as in apply.lua).
-- Writes one journal entry; a change `expired applied <message timetoken> 0 <message timetoken> ` with an empty field
-- means that every count of the message is gone.

local messages, journal, head_key = KEYS[1], KEYS[2], KEYS[3]
local journal_seconds, now = tonumber(ARGV[1]), redis.call('TIME')
local oldest = string.format('%d0000000', tonumber(now[1]) - tonumber(ARGV[2]))
local head = redis.call('GET', head_key) or '0-0'
redis.call('XLEN', journal)

local doomed, changes = {}, {}
for number = 1, #ARGV - 2 do
  local timetoken = ARGV[2 + number]
  if #timetoken == #oldest and timetoken < oldest and redis.call('ZSCORE', messages, timetoken) then
    doomed[#doomed + 1] = number
    changes[#changes + 1] = #changes / 2
    changes[#changes + 1] = 'expired applied ' .. timetoken .. ' 0 ' .. timetoken .. ' '
  end
end

for _, number in ipairs(doomed) do
  local key = 1 + 3 * number
  redis.call('UNLINK', KEYS[key], KEYS[key + 1], KEYS[key + 2])
  redis.call('ZREM', messages, ARGV[2 + number])
end

if #doomed > 0 then
  local minimum = string.format('%d', (tonumber(now[1]) - journal_seconds) * 1000)
  local id = redis.call('XADD', journal, 'MINID', '~', minimum, '*', 'after', head, 'origin', 'sweep', unpack(changes))
  redis.call('SET', head_key, id)
  redis.call('EXPIRE', journal, journal_seconds)
end

return #doomed
