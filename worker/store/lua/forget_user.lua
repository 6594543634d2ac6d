-- Deletes fields of one message that belong to users who are forgotten: actions and tombstones.
-- Makes the counts of their tallies what the other actions say.
--
-- KEYS[1] journal
-- KEYS[2] head: the id of the journal's last entry
-- KEYS[3] counts of the message
-- KEYS[4] actions of the message
-- KEYS[5] removed: the tombstones of the message
-- KEYS[6…] who keys, in any order; what is missing is answered
--
-- ARGV[1] life of the journal, in seconds
-- ARGV[2] the message timetoken
-- ARGV[3] a message with more actions is ranked
-- ARGV[4…] fields, as in actions, each once
--
-- Answers { how many actions were live, how many tombstones there were, the who keys that are needed }.
-- If there are some, nothing is written.
--
-- If a count changed, writes one journal entry that names no user. Its changes are
--   rebuilt applied <message timetoken> <new count> <message timetoken> <type>:<value>:
-- Then publishes a hint, as apply.lua does.
--
-- Redis does not roll a script back. So whatever can be refused is read before the first write.
-- The actions go last. If a command is refused (an ACL changed), the next call does everything again.

local call, unpack, find, gsub, match, sub = redis.call, unpack, string.find, string.gsub, string.match, string.sub
local journal, head_key, counts_key, actions_key, removed_key = unpack(KEYS, 1, 5)
local journal_seconds, message, ranked_above = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local who_prefix = sub(actions_key, 1, -#message - 9) .. 'who:' .. message .. ':'

local passed = {}
for number = 6, #KEYS do passed[KEYS[number]] = true end

-- Answers the tally of a field, encoded as in actions, and the user.
local function parts_of(field)
  return match(field, '^([^:]*:[^:]*):(.*)$')
end

-- read, check, and decide -------------------------------------------------------------------------

local head = call('GET', head_key) or '0-0'
call('XLEN', journal)
call('HLEN', counts_key)
local live = call('HMGET', actions_key, unpack(ARGV, 4))
local removed = call('HMGET', removed_key, unpack(ARGV, 4))
local size, doomed, drop_live, drop_removed = call('HLEN', actions_key), {}, { 'HDEL', actions_key }, { 'HDEL', removed_key }
-- tally → its live actions that stay
local counts = {}
for number = 1, #ARGV - 3 do
  local field = ARGV[3 + number]
  if live[number] then
    doomed[field] = true
    drop_live[#drop_live + 1] = field
    counts[parts_of(field)] = 0
  end
  if removed[number] then drop_removed[#drop_removed + 1] = field end
end
local live_count = #drop_live - 2
local was_ranked, is_ranked = size > ranked_above, size - live_count > ranked_above

-- tally → true, of every tally of the message
local tallies = {}
if live_count > 0 then
  local actions = call('HGETALL', actions_key)
  for at = 1, #actions, 2 do
    local tally = parts_of(actions[at])
    if tally then
      tallies[tally] = true
      local is_counted = counts[tally] and not doomed[actions[at]] and find(actions[at + 1], '^%d+$')
      if is_counted then counts[tally] = counts[tally] + 1 end
    end
  end
end

-- A message that stays ranked keeps its who keys; one that no longer is loses them.
local missing, unlink = {}, { 'UNLINK' }
for tally in pairs(was_ranked and (is_ranked and counts or tallies) or {}) do
  local key = who_prefix .. tally
  if not passed[key] then missing[#missing + 1] = key end
  if not is_ranked then unlink[#unlink + 1] = key end
end
if #missing > 0 then return { 0, 0, missing } end

local who = {}
for number = 4, #ARGV do
  local tally, user = parts_of(ARGV[number])
  local key = who_prefix .. tally
  if passed[key] and call('TYPE', key).ok == 'zset' then
    who[key] = who[key] or { 'ZREM', key }
    who[key][#who[key] + 1] = user
  end
end

local changed = {}
for tally in pairs(counts) do changed[#changed + 1] = tally end
table.sort(changed)
local set, cleared, changes = { 'HSET', counts_key }, { 'HDEL', counts_key }, {}
for _, tally in ipairs(changed) do
  local count, colon = counts[tally], find(tally, ':', 1, true)
  -- In counts, the value is raw.
  local value = gsub(sub(tally, colon + 1), '%%(..)', { ['25'] = '%', ['3A'] = ':' })
  local field = sub(tally, 1, colon) .. value
  if count > 0 then
    set[#set + 1] = field
    set[#set + 1] = string.format('%d', count)
  else
    cleared[#cleared + 1] = field
  end
  changes[#changes + 1] = #changes / 2
  changes[#changes + 1] = 'rebuilt applied ' .. message .. ' ' .. count .. ' ' .. message .. ' ' .. tally .. ':'
end

-- write -------------------------------------------------------------------------------------------

-- The journal comes first, as in apply.lua. The very first command needs no memory, as in sweep.lua.
local id
if #changes > 0 then
  call('EXPIRE', journal, journal_seconds)
  local minimum = string.format('%d', (tonumber(call('TIME')[1]) - journal_seconds) * 1000)
  id = call('XADD', journal, 'MINID', '~', minimum, '*', 'after', head, 'origin', 'reconcile', unpack(changes))
  call('SET', head_key, id)
  call('EXPIRE', journal, journal_seconds)
end

if #set > 2 then call(unpack(set)) end
if #cleared > 2 then call(unpack(cleared)) end
for _, command in pairs(who) do call(unpack(command)) end
if #unlink > 1 then call(unpack(unlink)) end
if #drop_removed > 2 then call(unpack(drop_removed)) end
if #drop_live > 2 then call(unpack(drop_live)) end

-- A user who may not publish is no error, as in apply.lua.
if id then
  local namespace, channel = match(head_key, '^([^:]*):{(.*)}:head$')
  redis.pcall('PUBLISH', namespace .. ':changed', channel .. ' ' .. id)
end

return { live_count, #drop_removed - 2, {} }
