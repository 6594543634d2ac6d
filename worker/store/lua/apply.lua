-- Apply a batch of events of one channel: the shadow of worker/domain/entry.py, with counts, journal and marks.
--
-- KEYS[1] messages   KEYS[2] journal   KEYS[3] head
-- KEYS[4…]           for each message of the batch, three: counts, actions, removed
--
-- ARGV[1] origin (live, backfill, reconcile)
-- ARGV[2] life of a tombstone, seconds      ARGV[3] life of the journal, seconds
-- ARGV[4] retention, seconds (0: for ever)
-- ARGV[5…]           for each message of the batch, one: its message timetoken
-- then for each event, six:
--   1 number of its message, from 1
--   2 added | removed | pruned | restored
--   3 field of its action      4 field of its tally
--   5 action timetoken
--   6 added, removed: when PubNub told (timetoken) · restored: the removed_through it saw · pruned: empty
--
-- Answers { head before, head after, outcomes }, a head being '0-0' where the journal has never had an entry, and
-- outcomes one letter an event: a(pplied) s(uperseded) d(uplicate) l(ate) e(arly) u(nmatched) x (expired).
--
-- Writes, if anything changed, one journal entry: `after` (the head before), `origin`, and the changes under 0, 1, 2…,
-- each `<event> <outcome> <action timetoken> <new count> <message timetoken> <field of the action>`.
--
-- Redis does not roll back: everything that can be refused is read, and so refused, before the first write.

local EVENT_ARGS = 6
local messages, journal, head_key = KEYS[1], KEYS[2], KEYS[3]
local origin, tombstone_seconds, journal_seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local message_count = (#KEYS - 3) / 3
local first_event = 5 + message_count
local now = redis.call('TIME')

-- Timetokens are compared as text: 17 digits fit no Lua number.
local function is_after(left, right)
  if #left ~= #right then return #left > #right end
  return left > right
end

-- A timetoken counts ten-millionths of a second; without its last four digits, milliseconds.
local function milliseconds(timetoken)
  return #timetoken > 4 and string.sub(timetoken, 1, -5) or '0'
end

-- A message's age is in its timetoken, if that is one of PubNub's own. sweep.lua deletes what this calls expired.
local retention_seconds = tonumber(ARGV[4])
local oldest_message = retention_seconds > 0 and string.format('%d0000000', tonumber(now[1]) - retention_seconds)
local function is_expired(timetoken)
  return oldest_message and #timetoken == #oldest_message and timetoken < oldest_message
end

------------------------------------------------------------------------------------------------ read, and check

local head = redis.call('GET', head_key) or '0-0'
redis.call('ZCARD', messages)
redis.call('XLEN', journal)

local state = {}
for number = 1, message_count do
  local key = 1 + 3 * number
  state[number] = {
    timetoken = ARGV[4 + number], counts_key = KEYS[key], actions_key = KEYS[key + 1], removed_key = KEYS[key + 2],
    fields = {}, tallies = {}, live = {}, removed = {}, counts = {},
    new_live = {}, new_removed = {}, new_counts = {}, tombstoned = false, newest = nil,
  }
end

for at = first_event, #ARGV, EVENT_ARGS do
  local message = state[tonumber(ARGV[at])]
  local field, tally = ARGV[at + 2], ARGV[at + 3]
  if message.live[field] == nil then
    message.live[field] = false
    message.fields[#message.fields + 1] = field
  end
  if message.counts[tally] == nil then
    message.counts[tally] = 0
    message.tallies[#message.tallies + 1] = tally
  end
end

for _, message in ipairs(state) do
  if #message.fields > 0 then
    local live = redis.call('HMGET', message.actions_key, unpack(message.fields))
    local removed = redis.call('HMGET', message.removed_key, unpack(message.fields))
    for index, field in ipairs(message.fields) do
      message.live[field], message.removed[field] = live[index], removed[index]
    end
    local counts = redis.call('HMGET', message.counts_key, unpack(message.tallies))
    for index, tally in ipairs(message.tallies) do
      local count = tonumber(counts[index] or '0')
      if not count then
        return redis.error_reply('ERR the count of a tally is not a number in ' .. message.counts_key)
      end
      message.counts[tally] = count
    end
  end
end

------------------------------------------------------------------------------------------------------- the rule

local function set_live(message, field, tally, timetoken, change)
  message.live[field], message.new_live[field] = timetoken, timetoken
  if change ~= 0 then
    message.counts[tally] = message.counts[tally] + change
    message.new_counts[tally] = true
  end
end

local function add(message, field, tally, added)
  local live, removed = message.live[field], message.removed[field]
  if removed and not is_after(added, removed) then return 'l' end
  if not live then
    set_live(message, field, tally, added, 1)
    return 'a'
  end
  if live == added then return 'd' end
  if is_after(live, added) then return 'l' end
  set_live(message, field, tally, added, 0)
  return 's'
end

local function remove(message, field, tally, through)
  local live, removed = message.live[field], message.removed[field]
  local known = removed and not is_after(through, removed)
  message.tombstoned = true
  if not known then
    message.removed[field], message.new_removed[field] = through, through
  end
  if live and not is_after(live, through) then
    set_live(message, field, tally, false, -1)
    return 'a'
  end
  return known and 'd' or 'e'
end

local function prune(message, field, tally, seen)
  if message.live[field] ~= seen then return 'u' end
  set_live(message, field, tally, false, -1)
  return 'a'
end

local function restore(message, field, tally, seen, barrier)
  if message.live[field] or message.removed[field] ~= barrier or is_after(seen, barrier) then return 'u' end
  message.removed[field], message.new_removed[field] = false, false
  set_live(message, field, tally, seen, 1)
  return 'a'
end

local rule = { added = add, removed = remove, pruned = prune, restored = restore }
local words = { a = 'applied', s = 'superseded', e = 'early' }
local outcomes, changes = {}, {}

for at = first_event, #ARGV, EVENT_ARGS do
  local message, event = state[tonumber(ARGV[at])], ARGV[at + 1]
  local field, tally, timetoken, extra = ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5]
  local outcome = is_expired(message.timetoken) and 'x' or rule[event](message, field, tally, timetoken, extra)
  outcomes[#outcomes + 1] = outcome
  if words[outcome] then
    changes[#changes + 1] = #changes / 2
    changes[#changes + 1] = table.concat(
      { event, words[outcome], timetoken, message.counts[tally], message.timetoken, field }, ' ')
    local told = milliseconds((event == 'added' or event == 'removed') and extra or timetoken)
    if not message.newest or is_after(told, message.newest) then message.newest = told end
  end
end

------------------------------------------------------------------------------------------------------- write

local function write(key, values)
  local set, deleted = {}, {}
  for field, value in pairs(values) do
    if value then
      set[#set + 1] = field
      set[#set + 1] = value
    else
      deleted[#deleted + 1] = field
    end
  end
  if #set > 0 then redis.call('HSET', key, unpack(set)) end
  if #deleted > 0 then redis.call('HDEL', key, unpack(deleted)) end
end

for _, message in ipairs(state) do
  for tally in pairs(message.new_counts) do
    local count = message.counts[tally]
    message.new_counts[tally] = count > 0 and count or false
  end
  write(message.counts_key, message.new_counts)
  write(message.actions_key, message.new_live)
  write(message.removed_key, message.new_removed)
  if message.tombstoned then redis.call('EXPIRE', message.removed_key, tombstone_seconds) end
  if message.newest then redis.call('ZADD', messages, 'GT', message.newest, message.timetoken) end
end

local new_head = head
if #changes > 0 then
  local oldest = (tonumber(now[1]) - journal_seconds) * 1000
  new_head = redis.call('XADD', journal, 'MINID', '~', string.format('%d', oldest), '*',
    'after', head, 'origin', origin, unpack(changes))
  redis.call('SET', head_key, new_head)
  redis.call('EXPIRE', journal, journal_seconds)
end

return { head, new_head, table.concat(outcomes) }
