-- Makes the sorted sets of a ranked message what its actions say: who chose each tally, and when.
-- Eviction or a hand may have changed them, or an older worker never wrote them.
-- It changes no count, so the journal gets nothing.
--
-- KEYS[1] actions of the message
-- KEYS[2…] who keys, in any order; what is missing is answered
--
-- ARGV[1] the message timetoken
-- ARGV[2] a message with more actions is ranked
--
-- Answers the who keys that are needed. If there are some, nothing is written.

local call, find, sub = redis.call, string.find, string.sub
local actions_key, message, ranked_above = KEYS[1], ARGV[1], tonumber(ARGV[2])
local MOST_ARGUMENTS = 2000 -- of one command

if call('HLEN', actions_key) <= ranked_above then return {} end

-- As in apply.lua.
local function score_of(timetoken)
  local thousands = tonumber(sub(timetoken, 1, -10)) or 0
  local rest = tonumber(sub(timetoken, -9)) or 0
  return (thousands - 17000000) * 1e9 + rest
end

-- tally → user → score
local scores, sizes = {}, {}
local actions = call('HGETALL', actions_key)
for at = 1, #actions, 2 do
  local field = actions[at]
  local first = find(field, ':', 1, true)
  local second = first and find(field, ':', first + 1, true)
  if second then
    local tally = sub(field, 1, second - 1)
    scores[tally] = scores[tally] or {}
    scores[tally][sub(field, second + 1)] = score_of(actions[at + 1])
    sizes[tally] = (sizes[tally] or 0) + 1
  end
end

local prefix = sub(actions_key, 1, -#message - 9) .. 'who:' .. message .. ':'
local passed, missing = {}, {}
for number = 2, #KEYS do passed[KEYS[number]] = true end
for tally in pairs(scores) do
  if not passed[prefix .. tally] then missing[#missing + 1] = prefix .. tally end
end
if #missing > 0 then return missing end

local function is_right(key, tally)
  if call('TYPE', key).ok ~= 'zset' or call('ZCARD', key) ~= sizes[tally] then return false end
  local users = call('ZRANGE', key, 0, -1, 'WITHSCORES')
  for at = 1, #users, 2 do
    if scores[tally][users[at]] ~= tonumber(users[at + 1]) then return false end
  end
  return true
end

for tally, users in pairs(scores) do
  local key = prefix .. tally
  if not is_right(key, tally) then
    call('UNLINK', key)
    local command = { 'ZADD', key }
    for user, score in pairs(users) do
      command[#command + 1] = string.format('%.0f', score)
      command[#command + 1] = user
      if #command > MOST_ARGUMENTS then
        call(unpack(command))
        command = { 'ZADD', key }
      end
    end
    if #command > 2 then call(unpack(command)) end
  end
end
return {}
