-- Save where a subscription's next read begins, and when it came there, by Redis's clock; but not in a Redis that has
-- forgotten what this worker saved before, for then it has forgotten the events before that, too.
--
-- KEYS[1] the subscription's cursor   ARGV[1] timetoken   ARGV[2] region
-- ARGV[3] the number of the newest save this worker knows of (0: none)
-- ARGV[4] how long ago it came there, in seconds; a part of a second more is better than less
-- Answers the number of this save; 0 if nothing was saved. A cursor that nobody saves for a week is gone: PubNub's cache
-- has long passed over it, and lists that change would leave one behind each time.

local saves = tonumber(redis.call('HGET', KEYS[1], 'saves') or '0')
if saves < tonumber(ARGV[3]) then return 0 end
local saved_at = math.floor(redis.call('TIME')[1] - ARGV[4])
redis.call('HSET', KEYS[1], 'timetoken', ARGV[1], 'region', ARGV[2], 'saved_at', saved_at, 'saves', saves + 1)
redis.call('EXPIRE', KEYS[1], 604800)
return saves + 1
