-- Reads the reactions of some messages of a channel, at one instant. It writes nothing.
--
-- KEYS[1] head: the id of the journal's last entry
-- KEYS[2] owed: the repairs that the channel needs
-- KEYS, for each message: counts, actions
-- KEYS, then: keys of who, in any order
--
-- ARGV[1] how many names of a reaction are wanted
-- ARGV[2] 1 if ARGV[3] is a user, else 0
-- ARGV[3] the user whose reactions are wanted
-- ARGV[4] a message with more actions is ranked: its names are in keys of who
-- ARGV[5] so many keys of who are read at most
-- ARGV[6] how many messages there are
-- ARGV[7] 1 if only some types are wanted, else 0
-- ARGV[8…] these types, as fields begin with them
--
-- Answers { { keys of who that are lacking in KEYS } } alone, if some are. Call it again with them.
-- Otherwise answers { {}, head, whether repairs are owed, then for each message its tallies }.
-- The head is '0-0' if the journal never had an entry.
-- The tallies of a message are one list. Each has three elements, if no names are wanted:
--   field, count, the user's action timetoken
-- Otherwise it has six:
--   field, count, the user's action timetoken, first and last action timetoken, list of names
-- '' stands for what is not there, and for what is not read.
-- Tallies come in the order of the counts.
--
-- Timetokens are compared as text: a Lua number has no room for 17 digits.

local call, format = redis.call, string.format
local find, sub, gsub = string.find, string.sub, string.gsub
local names, has_user, user, most = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local SIZE = names > 0 and 6 or 3
local MOST_ARGUMENTS = 5000 -- of one command

local LAST = 2 + 2 * tonumber(ARGV[6]) -- of the keys of messages

local types = ARGV[7] == '1' and {}
for number = 8, #ARGV do types[ARGV[number]] = true end
local given = {} -- keys of who
for key = LAST + 1, #KEYS do given[KEYS[key]] = true end

local function is_before(left, right)
  if #left ~= #right then return #left < #right end
  return left < right
end

-- How the fields of a tally's actions begin: there, the value is encoded, too.
local function prefix_of(field)
  local colon = find(field, ':', 1, true)
  if not find(field, '[%%:]', colon + 1) then return field .. ':' end
  local value = gsub(sub(field, colon + 1), '[%%:]', { ['%'] = '%25', [':'] = '%3A' })
  return sub(field, 1, colon) .. value .. ':'
end

-- Answers the wanted tallies of a message.
local function read_counts(key)
  local fields, tallies = call('HGETALL', key), {}
  for at = 1, #fields, 2 do
    local field = fields[at]
    if not types or types[sub(field, 1, find(field, ':', 1, true) - 1)] then
      local last = #tallies
      tallies[last + 1], tallies[last + 2], tallies[last + 3] = field, fields[at + 1], ''
      if SIZE == 6 then tallies[last + 4], tallies[last + 5], tallies[last + 6] = '', '', {} end
    end
  end
  return tallies
end

-- Adds when a user reacted, without reading what others did.
local function add_own(key, tallies)
  local fields = {}
  for at = 1, #tallies, SIZE do fields[#fields + 1] = prefix_of(tallies[at]) .. user end
  for first = 1, #fields, MOST_ARGUMENTS do
    local times = call('HMGET', key, unpack(fields, first, math.min(#fields, first + MOST_ARGUMENTS - 1)))
    for number = 1, #times do
      tallies[(first + number - 2) * SIZE + 3] = times[number] or ''
    end
  end
end

-- Puts an action among the first ones. Actions usually come in order, so they are compared once.
local function keep_first(times, users, time, name)
  local at = #times + 1
  if at > names then
    if not is_before(time, times[names]) then return end
    at = names
  end
  while at > 1 and is_before(time, times[at - 1]) do
    times[at], users[at] = times[at - 1], users[at - 1]
    at = at - 1
  end
  times[at], users[at] = time, name
end

-- Adds who reacted first, and when the first and the last one did.
local function add_names(key, tallies)
  local at_of, times_of = {}, {}
  for at = 1, #tallies, SIZE do at_of[prefix_of(tallies[at])] = at end
  local fields = call('HGETALL', key)
  for number = 1, #fields, 2 do
    local field, time = fields[number], fields[number + 1]
    local stop = find(field, ':', find(field, ':', 1, true) + 1, true)
    local at = at_of[sub(field, 1, stop)]
    if at then
      times_of[at] = times_of[at] or {}
      keep_first(times_of[at], tallies[at + 5], time, sub(field, stop + 1))
      if tallies[at + 4] == '' or is_before(tallies[at + 4], time) then tallies[at + 4] = time end
    end
  end
  for at, times in pairs(times_of) do tallies[at + 3] = times[1] end
end

-- Answers the keys of who of a message, for each of its tallies; none if there are very many.
local function who_keys(actions, tallies)
  local keys = {}
  if #tallies > most * SIZE then return keys end
  -- A channel has no brace, so this is where it ends.
  local start = gsub(actions, '}:actions:', '}:who:', 1) .. ':'
  for at = 1, #tallies, SIZE do
    keys[#keys + 1] = start .. sub(prefix_of(tallies[at]), 1, -2)
  end
  return keys
end

-- Answers the ranked messages, by the place of their keys, and which keys of who are lacking.
local function find_ranked()
  local ranked, lacking, room = {}, {}, tonumber(ARGV[5])
  for key = 3, LAST, 2 do
    if call('HLEN', KEYS[key + 1]) > most then
      local tallies = read_counts(KEYS[key])
      local keys = who_keys(KEYS[key + 1], tallies)
      if #keys > room then keys = {} end
      room = room - #keys
      ranked[key] = { tallies = tallies, keys = keys }
      for number = 1, #keys do
        if not given[keys[number]] then lacking[#lacking + 1] = keys[number] end
      end
    end
  end
  return ranked, lacking
end

-- A score is a timetoken less 17·10^15. The two halves of a timetoken fit a Lua number.
local function timetoken_of(score)
  local low = math.fmod(score, 1e15) + 0 -- without it, a zero may have a sign
  if low < 0 then low = low + 1e15 end
  local high = 17 + (score - low) / 1e15
  return (gsub(format('%.0f%015.0f', high, low), '^0+', ''))
end

-- Adds the same from keys of who. One that lacks a user is not believed.
local function add_ranked(ranked)
  local tallies = ranked.tallies
  for number, key in ipairs(ranked.keys) do
    local at = (number - 1) * SIZE + 1
    local size = redis.pcall('ZCARD', key) -- another program may have written it
    if size ~= 0 and size == tonumber(tallies[at + 1]) then
      local first = call('ZRANGE', key, 0, names - 1, 'WITHSCORES')
      local last = call('ZRANGE', key, -1, -1, 'WITHSCORES')
      tallies[at + 3], tallies[at + 4] = timetoken_of(first[2]), timetoken_of(last[2])
      for user = 1, #first, 2 do
        local users = tallies[at + 5]
        users[#users + 1] = first[user]
      end
    end
  end
end

local ranked, lacking = {}, {}
if names > 0 then ranked, lacking = find_ranked() end
if #lacking > 0 then return { lacking } end

local answer = { lacking, call('GET', KEYS[1]) or '0-0', call('EXISTS', KEYS[2]) }
for key = 3, LAST, 2 do
  local tallies = ranked[key] and ranked[key].tallies or read_counts(KEYS[key])
  if #tallies > 0 then
    if has_user then add_own(KEYS[key + 1], tallies) end
    if ranked[key] then
      add_ranked(ranked[key])
    elseif names > 0 then
      add_names(KEYS[key + 1], tallies)
    end
  end
  answer[#answer + 1] = tallies
end
return answer
