-- Reads the reactions of some messages of a channel, at one instant. It writes nothing.
--
-- KEYS[1] head: the id of the journal's last entry
-- KEYS[2] owed: the repairs that the channel needs
-- KEYS, for each message: counts, actions
--
-- ARGV[1] how many names of a reaction are wanted
-- ARGV[2] 1 if ARGV[3] is a user, else 0
-- ARGV[3] the user whose reactions are wanted
-- ARGV[4…] the types that are wanted, as fields begin with them; every type if there is none
--
-- Answers { head, whether repairs are owed, then for each message its tallies }.
-- The head is '0-0' if the journal never had an entry.
-- A tally is { its field, count, the user's action timetoken, first, last, names… }.
-- '' stands for what is unknown: first, last and names of a message with many actions are
-- read only if names are wanted.
--
-- Timetokens are compared as text: a Lua number has no room for 17 digits.

local call, find, sub, gsub = redis.call, string.find, string.sub, string.gsub
local wanted_names, has_user, user = tonumber(ARGV[1]), ARGV[2] == '1', ARGV[3]
local MANY = 128           -- actions of a message with many
local MOST_ARGUMENTS = 5000 -- of one command

local types
for number = 4, #ARGV do
  types = types or {}
  types[ARGV[number]] = true
end

local function is_before(left, right)
  if #left[1] ~= #right[1] then return #left[1] < #right[1] end
  if left[1] ~= right[1] then return left[1] < right[1] end
  return left[2] < right[2]
end

-- How the fields of a tally's actions begin: there, the value is encoded, too.
local function prefix_of(field)
  local colon = find(field, ':', 1, true)
  local value = gsub(sub(field, colon + 1), '[%%:]', { ['%'] = '%25', [':'] = '%3A' })
  return sub(field, 1, colon) .. value .. ':'
end

-- Answers the wanted tallies of a message, and each of them by its prefix.
local function read_counts(key)
  local fields, tallies, by_prefix = call('HGETALL', key), {}, {}
  for at = 1, #fields, 2 do
    local field = fields[at]
    if not types or types[sub(field, 1, find(field, ':', 1, true) - 1)] then
      local tally = { field, fields[at + 1], '', '', '' }
      tallies[#tallies + 1] = tally
      by_prefix[prefix_of(field)] = tally
    end
  end
  return tallies, by_prefix
end

-- Adds when a user reacted, who reacted first, and when the first and the last one did.
local function add_actions(key, by_prefix)
  local fields, actions = call('HGETALL', key), {}
  for at = 1, #fields, 2 do
    local _, stop = find(fields[at], '^[^:]*:[^:]*:')
    local tally = by_prefix[sub(fields[at], 1, stop)]
    if tally then
      actions[tally] = actions[tally] or {}
      local of_tally = actions[tally]
      of_tally[#of_tally + 1] = { fields[at + 1], sub(fields[at], stop + 1) }
    end
  end
  for tally, of_tally in pairs(actions) do
    table.sort(of_tally, is_before)
    tally[4], tally[5] = of_tally[1][1], of_tally[#of_tally][1]
    for number = 1, #of_tally do
      local action = of_tally[number]
      if number <= wanted_names then tally[5 + number] = action[2] end
      if has_user and action[2] == user then tally[3] = action[1] end
    end
  end
end

-- Adds when a user reacted, without reading what others did.
local function add_own(key, by_prefix)
  local prefixes, fields = {}, {}
  for prefix in pairs(by_prefix) do
    prefixes[#prefixes + 1] = prefix
    fields[#fields + 1] = prefix .. user
  end
  for first = 1, #fields, MOST_ARGUMENTS do
    local last = math.min(#fields, first + MOST_ARGUMENTS - 1)
    local times = call('HMGET', key, unpack(fields, first, last))
    for number = first, last do by_prefix[prefixes[number]][3] = times[number - first + 1] or '' end
  end
end

local answer = { call('GET', KEYS[1]) or '0-0', call('EXISTS', KEYS[2]) }
for key = 3, #KEYS, 2 do
  local tallies, by_prefix = read_counts(KEYS[key])
  if #tallies > 0 then
    local is_small = call('HLEN', KEYS[key + 1]) <= MANY
    if is_small or wanted_names > 0 then
      add_actions(KEYS[key + 1], by_prefix)
    elseif has_user then
      add_own(KEYS[key + 1], by_prefix)
    end
  end
  answer[#answer + 1] = tallies
end
return answer
