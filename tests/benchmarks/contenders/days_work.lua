-- One answer of PubNub. KEYS: the cursor's, then two an event: its message's actions, its counts.
-- ARGV: the cursor, then four an event: added or removed, the action, its tally, its timetoken.
redis.call('SET', KEYS[1], ARGV[1])
local at = 2
for key = 2, #KEYS, 2 do
  local event, action, tally, timetoken = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  at = at + 4
  if event == 'added' then
    if redis.call('HSETNX', KEYS[key], action, timetoken) == 1 then
      redis.call('HINCRBY', KEYS[key + 1], tally, 1)
    end
  elseif redis.call('HDEL', KEYS[key], action) == 1 then
    if redis.call('HINCRBY', KEYS[key + 1], tally, -1) == 0 then
      redis.call('HDEL', KEYS[key + 1], tally)
    end
  end
end
