-- Claims a namespace: writes all fields, or none.
--
-- KEYS[1] meta
-- ARGV[1] the life under which this process claimed it before ('': never)
-- ARGV[2] a new life, in case one is needed
-- ARGV[3] 1 if this process knows that Redis has lost something, else 0
-- ARGV[4] 1 if other processes use the namespace now, else 0
-- ARGV[5] the number of fields that name the owner (they come first)
-- ARGV[6] the types that do not bind the namespace, as nothing is counted under them ('': none)
-- ARGV[7…] field, value, field, value, …
--
-- Answers what meta holds, as HGETALL does: the fields just written, or those that refuse the claim.
-- Refused is a claim if meta is there, and
-- - a field of the owner differs, or is missing
--   (but types that do not bind are replaced, unless processes use the namespace), or
-- - another field differs while processes use it. (One that is missing is filled in.)
--
-- `life` is a random name. Who finds another one than before knows that Redis was emptied,
-- or that another process has noticed a loss.

local meta, life, new_life = KEYS[1], ARGV[1], ARGV[2]
local has_lost, owners, unbinding = ARGV[3] == '1', tonumber(ARGV[5]), ARGV[6]
local is_used = ARGV[4] == '1'

local is_there = redis.call('EXISTS', meta) == 1
for at = 7, #ARGV, 2 do
  local held = redis.call('HGET', meta, ARGV[at])
  local matters = is_there
  if ARGV[at] == 'types' and held == unbinding then matters = is_used end
  if at >= 7 + 2 * owners then matters = held and is_used end
  if matters and held ~= ARGV[at + 1] then return redis.call('HGETALL', meta) end
end

local held_life = redis.call('HGET', meta, 'life')
if not held_life or (has_lost and held_life == life) then redis.call('HSET', meta, 'life', new_life) end
redis.call('HSET', meta, unpack(ARGV, 7))
return redis.call('HGETALL', meta)
