-- Save where a subscription's next read begins, and when, by Redis's clock.
--
-- KEYS[1] the subscription's cursor   ARGV[1] timetoken   ARGV[2] region
-- Answers the time it was saved, in seconds.

local now = redis.call('TIME')[1]
redis.call('HSET', KEYS[1], 'timetoken', ARGV[1], 'region', ARGV[2], 'saved_at', now)
return now
