-- Takes away the marks that a reconcile has repaired. Marks that have changed since then stay.
--
-- KEYS[1] owed: what the channel needs
-- ARGV    cause, its mark when the reconcile began, cause, mark, …
--
-- Answers { marks left, 1 if another program had written something else there, else 0 }.
-- What is no mark was written by another program: it counts as 0, and goes.

local held = redis.call('TYPE', KEYS[1]).ok
if held ~= 'hash' and held ~= 'none' then
  redis.call('DEL', KEYS[1])
  if ARGV[1] == 'damaged_key' and ARGV[2] == '0' then return { 0, 1 } end
  -- The reconcile began before that. Marks of newer gaps are lost.
  redis.call('HSET', KEYS[1], 'damaged_key', '0')
  return { 1, 1 }
end

for at = 1, #ARGV, 2 do
  local mark = redis.call('HGET', KEYS[1], ARGV[at])
  if mark and not mark:find('^%d+$') then mark = '0' end
  if mark == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return { redis.call('HLEN', KEYS[1]), 0 }
