-- Reads the reactions of some messages of a channel, at one instant. It writes nothing.
--
-- KEYS[1] head: the id of the journal's last entry
-- KEYS[2] owed: the repairs that the channel needs
-- KEYS, for each message: counts, actions
--
-- ARGV[1] how many names of a reaction are wanted
-- ARGV[2] 1 if ARGV[3] is a user, else 0
-- ARGV[3] the user whose reactions are wanted
-- ARGV[4] so many actions of a message are read at most, for names
-- ARGV[5] 1 if only some types are wanted, else 0
-- ARGV[6…] these types, as fields begin with them
--
-- Answers { head, whether repairs are owed, then for each message its tallies }.
-- The head is '0-0' if the journal never had an entry.
-- The tallies of a message are one list. Each has three elements, if no names are wanted:
--   field, count, the user's action timetoken
-- Otherwise it has six:
--   field, count, the user's action timetoken, first and last action timetoken, list of names
-- '' stands for what is not there, and for what is not read.
-- Tallies come in the order of the counts.
--
-- Timetokens are compared as text: a Lua number has no room for 17 digits.

local call, find, sub, gsub = redis.call, string.find, string.sub, string.gsub
local names, has_user, user, most = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3], tonumber(ARGV[4])
local SIZE = names > 0 and 6 or 3
local MOST_ARGUMENTS = 5000 -- of one command

local types = ARGV[5] == '1' and {}
for number = 6, #ARGV do types[ARGV[number]] = true end

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

local answer = { call('GET', KEYS[1]) or '0-0', call('EXISTS', KEYS[2]) }
for key = 3, #KEYS, 2 do
  local tallies = read_counts(KEYS[key])
  if #tallies > 0 then
    if has_user then add_own(KEYS[key + 1], tallies) end
    if names > 0 and call('HLEN', KEYS[key + 1]) <= most then add_names(KEYS[key + 1], tallies) end
  end
  answer[#answer + 1] = tallies
end
return answer
