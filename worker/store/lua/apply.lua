-- Applies events of some channels, by the rule in worker/domain/entry.py; then saves cursors.
-- Each channel is applied by itself: what is refused of one stops no other.
-- Cursors are saved if no channel is refused, and none may be unknown:
-- then something must be written before a cursor passes.
-- A channel may be unknown if its index was empty. If live events change nothing,
-- an earlier try may have filled the index whose answer was lost.
--
-- KEYS, for each channel:
--   index of its messages
--   journal
--   head: the id of the journal's last entry
--   three keys for each of its messages: counts, actions, removed
-- KEYS, then: cursors
-- KEYS, at last, in any order: who keys of tallies; what is missing is answered
--
-- ARGV[1] origin: live, backfill or reconcile
-- ARGV[2] life of a tombstone, in seconds
-- ARGV[3] life of the journal, in seconds
-- ARGV[4] retention, in seconds (0: for ever)
-- ARGV[5] a message with more actions is ranked
-- ARGV[6] 1 if replicas must have what is answered, also if it was there before, else 0
-- ARGV[7] the number of channels
-- ARGV[8…] for each channel, in the order of the keys:
--   the number of its messages
--   the number of its arguments that follow
--   for each message, in the order of the keys:
--     its message timetoken
--     the time of its newest event, in milliseconds
--     T: the number of its tallies
--     T fields of tallies, each once
--     T numbers: how many of the following actions count for each tally
--     fields of actions, each once
--     a history for each action: its events, oldest first, with a space between them
-- ARGV, at last, for each cursor:
--   timetoken
--   region
--   number of the newest save that this worker knows (0: none)
--   its age, in seconds; rather a fraction too much than too little
--   signs of a cluster's shards ('': no cluster)
-- An event is one of:
--   <action timetoken>       added
--   r<action timetoken>      removed
--   p<action timetoken>      pruned
--   b<action timetoken>,<t>  restored; t is the removed_through that was seen
--
-- Answers, for each channel, { head before, head after, outcomes, whether it may be unknown },
-- or { why it is refused }, or { '', the who keys that are needed }.
-- Nothing is written of a channel that is refused, or needs keys.
-- Then, if cursors were saved, the number of each save, or why it is refused.
-- The number is 0 if Redis has forgotten an earlier save: then it has forgotten events, too.
-- The head is '0-0' if the journal never had an entry.
-- The outcomes are one letter for each event, in the order of ARGV:
--   a(pplied) s(uperseded) d(uplicate) l(ate) e(arly) u(nmatched) x (expired)
--
-- If anything changed, writes one journal entry with the fields
--   after    the head before
--   origin   ARGV[1]
--   0, 1, …  one change each:
--            <event> <outcome> <action timetoken> <new count> <message timetoken> <field>
-- Then publishes '<channel> <head after>' on the Pub/Sub channel <namespace>:changed, a hint for
-- those who follow the journal. The channel stands there as it stands in the braces of its keys.
--
-- Each tally of a ranked message has a sorted set of its users, the who key:
--   user → action timetoken − 17·10^15
-- A message that becomes ranked gets all of them, and one that no longer is loses them.
--
-- Redis does not roll a script back. So whatever can be refused is read before the first write.
-- Most channels have one new action of one message.
-- For them the script creates few tables and calls few functions.

local call, unpack, concat = redis.call, unpack, table.concat
local byte, sub, find, match = string.byte, string.sub, string.find, string.match
local max = math.max
local origin, tombstone_seconds, journal_seconds = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local ranked_above = tonumber(ARGV[5])
-- WAIT waits for the writes of its own connection alone. So there must be one.
local must_write = ARGV[6] == '1'
local now = tonumber(call('TIME')[1])
local oldest_entry = string.format('%d', (now - journal_seconds) * 1000)

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

local words = { a = ' applied ', s = ' superseded ', e = ' early ' }

-- What the current channel's events did, and what will be written.
local outcomes, changes, writes, lives, index, missing
local outcome_count, change_count

-- Tells whether a who key is one of KEYS. If not, notes that it is missing.
local passed
local function is_given(key)
  if not passed then
    passed = {}
    for number = 1, #KEYS do passed[KEYS[number]] = true end
  end
  if not passed[key] then missing[#missing + 1] = key end
  return passed[key]
end

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

-- Answers the score of an action timetoken in a who key.
local function score_of(timetoken)
  local billions, rest = tonumber('0' .. sub(timetoken, 1, -10)), tonumber('0' .. sub(timetoken, -9))
  return string.format('%.0f', (billions - 17000000) * 1e9 + rest)
end

-- Adds arguments to the command for a who key. A key has one command of each name.
local function add_arguments(commands, name, key, ...)
  local command = commands[key] or { name, key }
  for _, argument in ipairs({ ... }) do command[#command + 1] = argument end
  commands[key] = command
end

-- Decides what happens to the who keys of a message whose live actions change.
-- If it becomes ranked, or no longer is, that is all of them.
local function rank(message, actions_key, size, growth, set, cleared)
  local was_ranked, is_ranked = size > ranked_above, size + growth > ranked_above
  local prefix = sub(actions_key, 1, -#message - 9) .. 'who:' .. message .. ':'
  local seen, added, dropped = {}, {}, {}

  -- Answers the who key of an action, and its user.
  -- What is there goes, unless it is the set of a message that stays ranked.
  local function place_of(field)
    local tally, user = match(field, '^([^:]*:[^:]*):(.*)$')
    if not tally then return nil end -- another program wrote it
    local key = prefix .. tally
    if not seen[key] then
      seen[key] = true
      local stays = is_given(key) and was_ranked and is_ranked and call('TYPE', key).ok == 'zset'
      if not stays then writes[#writes + 1] = { 'UNLINK', key } end
    end
    return key, user
  end

  local function note(field, timetoken)
    local key, user = place_of(field)
    if key and is_ranked and find(timetoken, '^%d+$') then
      add_arguments(added, 'ZADD', key, score_of(timetoken), user)
    end
  end

  if was_ranked ~= is_ranked then
    local held = call('HGETALL', actions_key)
    for at = 1, #held, 2 do note(held[at], held[at + 1]) end
  end
  if is_ranked then
    for at = 3, #set, 2 do note(set[at], set[at + 1]) end
    for at = 3, #cleared do
      local key, user = place_of(cleared[at])
      add_arguments(dropped, 'ZREM', key, user)
    end
  end
  for _, command in pairs(added) do writes[#writes + 1] = command end
  for _, command in pairs(dropped) do writes[#writes + 1] = command end
end

-- Decides what the events of one message do. Its keys and arguments begin at these places.
-- Answers where the arguments of the next message begin.
local function decide(key, at)
  local counts_key, actions_key, removed_key = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local message, newest, tally_count = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local tallies = at + 2                 -- before the first of each
  local numbers = tallies + tally_count
  local fields = numbers + tally_count
  local field_count = 0
  for number = numbers + 1, fields do field_count = field_count + tonumber(ARGV[number]) end
  local histories = fields + field_count

  local all_live = call('HMGET', actions_key, unpack(ARGV, fields + 1, histories))
  local all_removed = call('HMGET', removed_key, unpack(ARGV, fields + 1, histories))
  local all_counts = call('HMGET', counts_key, unpack(ARGV, tallies + 1, numbers))
  local expired, changed, growth = is_expired(message), false, 0
  local set_live, cleared_live, set_removed, cleared_removed, set_counts, cleared_counts
  tombstoned = false

  local place = 0
  for tally = 1, tally_count do
    count = tonumber(all_counts[tally] or '0')
    if not count then error({ err = 'ERR the count of a tally is not a number in ' .. counts_key }) end
    local count_before = count
    for _ = 1, tonumber(ARGV[numbers + tally]) do
      place = place + 1
      local field, history = ARGV[fields + place], ARGV[histories + place]
      local live_before, removed_before = all_live[place], all_removed[place]
      live, removed = live_before, removed_before
      local rest = history
      while rest do
        local event, space = rest, find(rest, ' ', 1, true)
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
        growth = growth + (live and 1 or 0) - (live_before and 1 or 0)
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
  if set_live or cleared_live then
    local size = call('HLEN', actions_key)
    if max(size, size + growth) > ranked_above then
      rank(message, actions_key, size, growth, set_live or {}, cleared_live or {})
    end
  end
  if tombstoned then lives[#lives + 1] = removed_key end
  if changed then
    index[#index + 1] = newest
    index[#index + 1] = message
  end
  return histories + field_count + 1
end

-- write -------------------------------------------------------------------------------------------

-- Writes the journal and the index. They come first: if a later command is refused (an ACL changed),
-- the call is repeated. The journal may then say the same change twice, but it lacks none.
-- To count the index first refuses one of another type before anything is written.
-- Answers the new head, and whether the index was empty.
local function note_changes(messages, journal, head_key, head)
  local was_empty = call('ZCARD', messages) == 0
  head = call('XADD', journal, 'MINID', '~', oldest_entry, '*', 'after', head, 'origin', origin, unpack(changes))
  call('SET', head_key, head)
  call('EXPIRE', journal, journal_seconds)
  call('ZADD', messages, 'GT', unpack(index))
  return head, was_empty
end

-- Publishes the hint that a channel has a new head. The names of both are in its keys.
-- A user who may not publish is no error: followers look at all heads every few seconds, too.
local namespace = match(KEYS[1], '^[^:]*')
local hints, may_publish = namespace .. ':changed', true
local function publish(head_key, head)
  local channel = sub(head_key, #namespace + 3, -7)
  may_publish = may_publish and type(redis.pcall('PUBLISH', hints, channel .. ' ' .. head)) == 'number'
end

-- Applies a channel's events. Its keys and arguments begin at these places.
local function apply_channel(key, at, message_count)
  local messages, journal, head_key = KEYS[key], KEYS[key + 1], KEYS[key + 2]
  local head = call('GET', head_key) or '0-0'
  if not find(head, '^%d+%-%d+$') then error({ err = 'ERR no id of an entry is in ' .. head_key }) end
  for message = 1, message_count do at = decide(key + message * 3, at) end
  if #missing > 0 then return { '', missing } end

  local new_head, may_be_unknown = head, origin == 'live'
  if change_count > 0 then new_head, may_be_unknown = note_changes(messages, journal, head_key, head) end
  for number = 1, #writes do call(unpack(writes[number])) end
  for number = 1, #lives do call('EXPIRE', lives[number], tombstone_seconds) end
  if change_count > 0 then publish(head_key, new_head) end
  if change_count == 0 and must_write then call('EXPIRE', journal, journal_seconds) end
  return { head, new_head, concat(outcomes), may_be_unknown and 1 or 0 }
end

-- A cursor that is not saved for a week is deleted: PubNub's cache no longer reaches back to it.
-- (A change of the list of names leaves such cursors behind.)
local function save_cursor(key, at)
  local saves = tonumber(call('HGET', key, 'saves') or '0')
  if saves < tonumber(ARGV[at + 2]) then return 0 end
  local saved_at = math.floor(now - ARGV[at + 3])
  call('HSET', key, 'timetoken', ARGV[at], 'region', ARGV[at + 1], 'saved_at', saved_at, 'saves', saves + 1)
  if ARGV[at + 4] ~= '' then call('HSET', key, 'shards', ARGV[at + 4]) end
  call('EXPIRE', key, 604800)
  return saves + 1
end

-- Why a replica refuses the whole call: the client then connects anew.
local readonly

-- Calls a function. Answers an error as text.
local function try(what, ...)
  local is_done, answer = pcall(what, ...)
  if is_done then return answer end
  local reason = type(answer) == 'table' and answer.err or tostring(answer)
  readonly = readonly or match(reason, '^[^{]-(READONLY .*)') -- a brace begins a channel
  return reason, true
end

local answers, may_save = {}, true
local key, at = 1, 8
for channel = 1, tonumber(ARGV[7]) do
  local message_count, argument_count = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  outcomes, changes, writes, lives, index, missing = {}, {}, {}, {}, {}, {}
  outcome_count, change_count = 0, 0
  local answer, is_refused = try(apply_channel, key, at + 2, message_count)
  answers[channel] = is_refused and { answer } or answer
  may_save = may_save and not is_refused and answer[4] == 0
  key = key + 3 + message_count * 3
  at = at + 2 + argument_count
end
while may_save and at < #ARGV do
  answers[#answers + 1] = try(save_cursor, KEYS[key], at)
  key, at = key + 1, at + 5
end
return readonly and redis.error_reply(readonly) or answers
