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
-- ARGV[3] how many fields a call may write, of counts and of actions each
--
-- Answers 1 if anything was written, else 0. After a 1 more may be left.
-- A message with actions that the index lacks gets the time of its newest action there.
-- A field of actions that belongs to nobody, or has no time, is deleted.
--
-- If a count changed, writes one journal entry. Its changes are
--   rebuilt applied <message timetoken> <new count> <message timetoken> <type>:<value>:
-- Then publishes a hint, as apply.lua does.
--
-- Redis does not roll a script back. So whatever can be refused is read before the first write.

local call, unpack, find, gsub, sub = redis.call, unpack, string.find, string.gsub, string.sub
local messages, journal, head_key, counts_key, actions_key = unpack(KEYS)
local journal_seconds, message, most = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

local function encode(text)
  return (gsub(text, '[%%:]', { ['%'] = '%25', [':'] = '%3A' }))
end

-- Answers false if no worker encodes a part of a field so.
local function decode(part)
  local text = gsub(part, '%%(..)', { ['25'] = '%', ['3A'] = ':' })
  return encode(text) == part and text
end

-- Answers the field of counts that counts this field of actions; nil or false if there is none.
local tallies = {}
local function tally_of(field)
  local first = find(field, ':', 1, true)
  local second = first and find(field, ':', first + 1, true)
  if not second then return nil end
  local prefix = sub(field, 1, second)
  if tallies[prefix] == nil then
    local type, value = sub(field, 1, first - 1), decode(sub(field, first + 1, second - 1))
    tallies[prefix] = decode(type) and value and type .. ':' .. value
  end
  return tallies[prefix]
end

-- read, check, and decide -------------------------------------------------------------------------

local head = call('GET', head_key) or '0-0'
call('XLEN', journal)

local live, strays, newest = {}, { 'HDEL', actions_key }, '0'
local actions = call('HGETALL', actions_key)
for at = 1, #actions, 2 do
  local field, timetoken = actions[at], actions[at + 1]
  local tally = find(timetoken, '^%d+$') and tally_of(field)
  if tally then
    live[tally] = (live[tally] or 0) + 1
    if #timetoken > #newest or #timetoken == #newest and timetoken > newest then newest = timetoken end
  elseif #strays < most + 2 then
    strays[#strays + 1] = field
  end
end
local is_lost = next(live) and not call('ZSCORE', messages, message)

local held, fields = {}, call('HGETALL', counts_key)
for at = 1, #fields, 2 do
  held[fields[at]] = fields[at + 1]
  live[fields[at]] = live[fields[at]] or 0
end
local differing = {}
for tally, count in pairs(live) do
  local right = count > 0 and string.format('%d', count) or nil
  if held[tally] ~= right then differing[#differing + 1] = tally end
end
table.sort(differing)

local set, cleared, changes = { 'HSET', counts_key }, { 'HDEL', counts_key }, {}
for number = 1, math.min(#differing, most) do
  local tally = differing[number]
  local count, colon = live[tally], find(tally, ':', 1, true) or #tally + 1
  if count > 0 then
    set[#set + 1] = tally
    set[#set + 1] = count
  else
    cleared[#cleared + 1] = tally
  end
  local prefix = sub(tally, 1, colon - 1) .. ':' .. encode(sub(tally, colon + 1)) .. ':'
  changes[#changes + 1] = #changes / 2
  changes[#changes + 1] = 'rebuilt applied ' .. message .. ' ' .. count .. ' ' .. message .. ' ' .. prefix
end

-- write -------------------------------------------------------------------------------------------

-- The journal comes first, as in apply.lua.
local id
if #changes > 0 then
  local minimum = string.format('%d', (tonumber(call('TIME')[1]) - journal_seconds) * 1000)
  id = call('XADD', journal, 'MINID', '~', minimum, '*', 'after', head, 'origin', 'reconcile', unpack(changes))
  call('SET', head_key, id)
  call('EXPIRE', journal, journal_seconds)
end

if #set > 2 then call(unpack(set)) end
if is_lost then call('ZADD', messages, string.format('%d', tonumber(sub(newest, 1, -5)) or 0), message) end
if #cleared > 2 then call(unpack(cleared)) end
if #strays > 2 then call(unpack(strays)) end

-- A user who may not publish is no error, as in apply.lua.
if id then
  local namespace, channel = string.match(head_key, '^([^:]*):{(.*)}:head$')
  redis.pcall('PUBLISH', namespace .. ':changed', channel .. ' ' .. id)
end

return (#changes > 0 or is_lost or #strays > 2) and 1 or 0
