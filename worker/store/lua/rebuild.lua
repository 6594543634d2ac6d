-- Makes counts of one message what its actions say, and puts the message into the index again.
-- Eviction or a hand may have changed them.
--
-- KEYS[1] index of the channel's messages
-- KEYS[2] journal of the channel
-- KEYS[3] head: the id of the journal's last entry
-- KEYS[4] counts of the message
-- KEYS[5] actions of the message
--
-- ARGV[1] life of the journal, in seconds
-- ARGV[2] the message timetoken
-- ARGV[3] T: the number of tallies that may be wrong
-- ARGV[4…] T fields of counts
--          T beginnings of fields of actions, in the same order: <type>:<value>:
--          fields of actions that belong to nobody, and are deleted
--
-- Answers 1 if anything was written, else 0.
-- A message with actions that the index lacks gets the time of its newest action there.
--
-- If a count changed, writes one journal entry. Its changes are
--   rebuilt applied <message timetoken> <new count> <message timetoken> <type>:<value>:
--
-- Redis does not roll a script back. So whatever can be refused is read before the first write.

local call, unpack, find, sub = redis.call, unpack, string.find, string.sub
local messages, journal, head_key, counts_key, actions_key = unpack(KEYS)
local journal_seconds, message, tally_count = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local prefixes = 3 + tally_count      -- before the first of each
local strays = prefixes + tally_count

-- read, check, and decide -------------------------------------------------------------------------

local head = call('GET', head_key) or '0-0'
local is_lost = not call('ZSCORE', messages, message) and call('HLEN', actions_key) > #ARGV - strays
call('XLEN', journal)

local live = {}
for number = prefixes + 1, strays do live[ARGV[number]] = 0 end
for _, field in ipairs(tally_count > 0 and call('HKEYS', actions_key) or {}) do
  local first = find(field, ':', 1, true)
  local second = first and find(field, ':', first + 1, true)
  local prefix = second and sub(field, 1, second)
  if live[prefix] then live[prefix] = live[prefix] + 1 end
end

local set, cleared, changes = { 'HSET', counts_key }, { 'HDEL', counts_key }, {}
local held = tally_count > 0 and call('HMGET', counts_key, unpack(ARGV, 4, prefixes))
for number = 1, tally_count do
  local tally, prefix = ARGV[3 + number], ARGV[prefixes + number]
  local count = live[prefix]
  if held[number] ~= (count > 0 and string.format('%d', count)) then
    if count > 0 then
      set[#set + 1] = tally
      set[#set + 1] = count
    else
      cleared[#cleared + 1] = tally
    end
    changes[#changes + 1] = #changes / 2
    changes[#changes + 1] = 'rebuilt applied ' .. message .. ' ' .. count .. ' ' .. message .. ' ' .. prefix
  end
end

local newest = '0'
for _, timetoken in ipairs(is_lost and call('HVALS', actions_key) or {}) do
  if #timetoken > #newest or #timetoken == #newest and timetoken > newest then newest = timetoken end
end

-- write -------------------------------------------------------------------------------------------

-- The journal comes first, as in apply.lua.
if #changes > 0 then
  local minimum = string.format('%d', (tonumber(call('TIME')[1]) - journal_seconds) * 1000)
  local id = call('XADD', journal, 'MINID', '~', minimum, '*', 'after', head, 'origin', 'reconcile', unpack(changes))
  call('SET', head_key, id)
  call('EXPIRE', journal, journal_seconds)
end

if #set > 2 then call(unpack(set)) end
if is_lost then call('ZADD', messages, string.format('%d', tonumber(sub(newest, 1, -5)) or 0), message) end
if #cleared > 2 then call(unpack(cleared)) end
local deleted = #ARGV > strays and call('HDEL', actions_key, unpack(ARGV, strays + 1)) or 0

return (#changes > 0 or is_lost or deleted > 0) and 1 or 0
