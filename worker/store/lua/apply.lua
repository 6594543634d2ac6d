-- Applies a batch of events of one channel, by the rule in worker/domain/entry.py.
--
-- KEYS[1] index of the channel's messages
-- KEYS[2] journal of the channel
-- KEYS[3] head: the id of the journal's last entry
-- KEYS[4…] three keys for each message of the batch: counts, actions, removed
--
-- ARGV[1] origin: live, backfill or reconcile
-- ARGV[2] life of a tombstone, in seconds
-- ARGV[3] life of the journal, in seconds
-- ARGV[4] retention, in seconds (0: for ever)
-- ARGV[5…] for each message, in the order of the keys:
--   its message timetoken
--   the time of its newest event, in milliseconds
--   T: the number of its tallies
--   F: the number of its actions
--   T fields of tallies, each once
--   T numbers: how many of the following actions count for each tally
--   F fields of actions, each once
--   F histories: the events of each action, oldest first, with a space between them
-- An event is one of:
--   <action timetoken>       added
--   r<action timetoken>      removed
--   p<action timetoken>      pruned
--   b<action timetoken>,<t>  restored; t is the removed_through that was seen
--
-- Answers { head before, head after, outcomes, messages in the index before }.
-- The head is '0-0' if the journal never had an entry.
-- The outcomes are one letter for each event, in the order of ARGV:
--   a(pplied) s(uperseded) d(uplicate) l(ate) e(arly) u(nmatched) x (expired)
-- Answers an error, and writes nothing, if a count is not a number, or the head is not an id.
--
-- If anything changed, writes one journal entry with the fields
--   after    the head before
--   origin   ARGV[1]
--   0, 1, …  one change each:
--            <event> <outcome> <action timetoken> <new count> <message timetoken> <field>
--
-- Redis does not roll a script back. So whatever can be refused is read before the first write.
-- Most batches have one new action of each of a few messages.
-- For them the script creates few tables and calls few functions.

local call, unpack, concat, byte, sub, find = redis.call, unpack, table.concat, string.byte, string.sub, string.find
local max = math.max
local messages, journal, head_key = KEYS[1], KEYS[2], KEYS[3]
local origin, tombstone_seconds, journal_seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(call('TIME')[1])

-- Timetokens are compared as text: a Lua number has no room for 17 digits.
local function is_after(left, right)
  if #left ~= #right then return #left > #right end
  return left > right
end

-- The age of a message is in its timetoken, if that has PubNub's length.
-- sweep.lua deletes the messages that are expired here.
local retention_seconds = tonumber(ARGV[4])
local oldest_message = retention_seconds > 0 and string.format('%d0000000', now - retention_seconds)
local function is_expired(timetoken)
  return oldest_message and #timetoken == #oldest_message and timetoken < oldest_message
end

-- the rule ----------------------------------------------------------------------------------------

-- The current entry, the count of its tally (never negative, even if Redis lost it),
-- and whether a removal renews the life of its message's tombstones.
local live, removed, count, tombstoned

local function add(added)
  if removed and not is_after(added, removed) then return 'l' end
  if not live then
    live, count = added, count + 1
    return 'a'
  end
  if live == added then return 'd' end
  if is_after(live, added) then return 'l' end
  live = added
  return 's'
end

local function remove(through)
  local known = removed and not is_after(through, removed)
  tombstoned = true
  if not known then removed = through end
  if live and not is_after(live, through) then
    live, count = false, max(0, count - 1)
    return 'a'
  end
  return known and 'd' or 'e'
end

local function prune(seen)
  if live ~= seen then return 'u' end
  live, count = false, max(0, count - 1)
  return 'a'
end

local function restore(seen, barrier)
  if live or removed ~= barrier or is_after(seen, barrier) then return 'u' end
  removed, live, count = false, seen, count + 1
  return 'a'
end

-- Answers the outcome, the event's name and its action timetoken.
local function apply(event)
  local kind = byte(event)
  if kind <= 57 then return add(event), 'added', event end -- it begins with a digit
  if kind == 114 then
    event = sub(event, 2)
    return remove(event), 'removed', event
  end
  if kind == 112 then
    event = sub(event, 2)
    return prune(event), 'pruned', event
  end
  local comma = find(event, ',')
  local seen = sub(event, 2, comma - 1)
  return restore(seen, sub(event, comma + 1)), 'restored', seen
end

-- read, check, and decide -------------------------------------------------------------------------

local head = call('GET', head_key) or '0-0'
if not find(head, '^%d+%-%d+$') then return redis.error_reply('ERR no id of an entry is in ' .. head_key) end
local indexed = call('ZCARD', messages)
call('XLEN', journal)

local words = { a = ' applied ', s = ' superseded ', e = ' early ' }
local outcomes, changes, writes, lives, index = {}, {}, {}, {}, {}
local outcome_count, change_count = 0, 0

-- Adds a field to the command that will set it, or to the one that will delete it.
local function keep(set, cleared, key, field, value)
  if value then
    set = set or { 'HSET', key }
    set[#set + 1] = field
    set[#set + 1] = value
  else
    cleared = cleared or { 'HDEL', key }
    cleared[#cleared + 1] = field
  end
  return set, cleared
end

local at = 5
for key = 4, #KEYS, 3 do
  local counts_key, actions_key, removed_key = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local message, newest, tally_count, field_count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local tallies = at + 3                 -- before the first of each
  local numbers = tallies + tally_count
  local fields = numbers + tally_count
  local histories = fields + field_count
  at = histories + field_count + 1

  local all_live = call('HMGET', actions_key, unpack(ARGV, fields + 1, histories))
  local all_removed = call('HMGET', removed_key, unpack(ARGV, fields + 1, histories))
  local all_counts = call('HMGET', counts_key, unpack(ARGV, tallies + 1, numbers))
  local expired, changed = is_expired(message), false
  local set_live, cleared_live, set_removed, cleared_removed, set_counts, cleared_counts
  tombstoned = false

  local place = 0
  for tally = 1, tally_count do
    count = tonumber(all_counts[tally] or '0')
    if not count then return redis.error_reply('ERR the count of a tally is not a number in ' .. counts_key) end
    local count_before = count
    for _ = 1, tonumber(ARGV[numbers + tally]) do
      place = place + 1
      local field, history = ARGV[fields + place], ARGV[histories + place]
      local live_before, removed_before = all_live[place], all_removed[place]
      live, removed = live_before, removed_before
      local rest = history
      while rest do
        local event, space = rest, find(rest, ' ')
        if space then event, rest = sub(rest, 1, space - 1), sub(rest, space + 1) else rest = nil end
        outcome_count = outcome_count + 1
        if expired then
          outcomes[outcome_count] = 'x'
        else
          local outcome, name, timetoken = apply(event)
          outcomes[outcome_count] = outcome
          local word = words[outcome]
          if word then
            changed = true
            changes[change_count + 1] = change_count / 2
            changes[change_count + 2] = name .. word .. timetoken .. ' ' .. count .. ' ' .. message .. ' ' .. field
            change_count = change_count + 2
          end
        end
      end
      if live ~= live_before then
        set_live, cleared_live = keep(set_live, cleared_live, actions_key, field, live)
      end
      if removed ~= removed_before then
        set_removed, cleared_removed = keep(set_removed, cleared_removed, removed_key, field, removed)
      end
    end
    if count ~= count_before then
      set_counts, cleared_counts =
        keep(set_counts, cleared_counts, counts_key, ARGV[tallies + tally], count > 0 and count)
    end
  end

  -- Commands that need memory come first: a Redis without memory refuses the first one,
  -- and nothing is written. (A command without fields is nil, and is not added.)
  writes[#writes + 1] = set_counts
  writes[#writes + 1] = set_live
  writes[#writes + 1] = set_removed
  writes[#writes + 1] = cleared_counts
  writes[#writes + 1] = cleared_live
  writes[#writes + 1] = cleared_removed
  if tombstoned then lives[#lives + 1] = removed_key end
  if changed then
    index[#index + 1] = newest
    index[#index + 1] = message
  end
end

-- write -------------------------------------------------------------------------------------------

-- Journal and index come first. If a later command is refused (an ACL changed), the call is repeated:
-- the journal may then say the same change twice, but it lacks none.
local new_head = head
if change_count > 0 then
  local oldest = string.format('%d', (now - journal_seconds) * 1000)
  new_head = call('XADD', journal, 'MINID', '~', oldest, '*', 'after', head, 'origin', origin, unpack(changes))
  call('SET', head_key, new_head)
  call('EXPIRE', journal, journal_seconds)
  call('ZADD', messages, 'GT', unpack(index))
end

for number = 1, #writes do call(unpack(writes[number])) end
for number = 1, #lives do call('EXPIRE', lives[number], tombstone_seconds) end

return { head, new_head, concat(outcomes), indexed }
