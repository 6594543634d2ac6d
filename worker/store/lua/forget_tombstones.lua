-- Deletes tombstones of one message, if they are unchanged.
--
-- KEYS[1] removed: the tombstones of the message
-- ARGV    field of an action, the removed_through that was seen, field, removed_through, …
--
-- Answers how many were deleted.

local fields = {}
for at = 1, #ARGV, 2 do fields[#fields + 1] = ARGV[at] end

local held = redis.call('HMGET', KEYS[1], unpack(fields))
local old = {}
for number, field in ipairs(fields) do
  if held[number] == ARGV[2 * number] then old[#old + 1] = field end
end
if #old == 0 then return 0 end
return redis.call('HDEL', KEYS[1], unpack(old))
