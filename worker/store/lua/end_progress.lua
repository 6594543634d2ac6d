-- Ends a channel's backfill. If another one was asked for meanwhile, saves where it begins.
--
-- KEYS[1] progress of the channel
--
-- Answers 1 if another backfill is to be done, else 0.

local again = redis.call('HGET', KEYS[1], 'again')
redis.call('DEL', KEYS[1])
if not again then return 0 end
redis.call('HSET', KEYS[1], 'newest', again, 'next', again, 'oldest', '', 'actions', 0)
return 1
