-- One event. KEYS: its message's actions, its counts.
-- ARGV: added or removed, the action, its tally, its timetoken.
if ARGV[1] == 'added' then
  if redis.call('HSETNX', KEYS[1], ARGV[2], ARGV[4]) == 1 then
    redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
  end
elseif redis.call('HDEL', KEYS[1], ARGV[2]) == 1 then
  if redis.call('HINCRBY', KEYS[2], ARGV[3], -1) == 0 then
    redis.call('HDEL', KEYS[2], ARGV[3])
  end
end
