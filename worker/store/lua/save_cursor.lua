-- Saves where a subscription's next read begins.
-- Saves nothing in a Redis that has forgotten an earlier save of this worker:
-- it has forgotten the events before that save, too.
--
-- KEYS[1] cursor of the subscription
-- ARGV[1] timetoken
-- ARGV[2] region
-- ARGV[3] number of the newest save that this worker knows (0: none)
-- ARGV[4] age of the cursor, in seconds; rather a fraction too much than too little
--
-- Answers the number of this save, or 0 if nothing was saved.
--
-- A cursor that is not saved for a week is deleted: PubNub's cache no longer reaches back to it.
-- (A change of the list of names leaves such cursors behind.)

local saves = tonumber(redis.call('HGET', KEYS[1], 'saves') or '0')
if saves < tonumber(ARGV[3]) then return 0 end
local saved_at = math.floor(redis.call('TIME')[1] - ARGV[4])
redis.call('HSET', KEYS[1], 'timetoken', ARGV[1], 'region', ARGV[2], 'saved_at', saved_at, 'saves', saves + 1)
redis.call('EXPIRE', KEYS[1], 604800)
return saves + 1
