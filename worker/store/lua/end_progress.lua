-- Say that a channel's backfill has ended; if another was asked for meanwhile, leave its place instead.
--
-- KEYS[1] the channel's progress
-- Answers 1 if there is another to do, else 0.

local again = redis.call('HGET', KEYS[1], 'again')
redis.call('DEL', KEYS[1])
if not again then return 0 end
redis.call('HSET', KEYS[1], 'newest', again, 'next', again, 'oldest', '', 'actions', 0)
return 1
