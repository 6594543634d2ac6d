-- Claim a namespace that nobody has claimed: all of what says whose it is, or nothing.
--
-- KEYS[1] meta   ARGV field, value, field, value, …
-- Answers what meta holds, as HGETALL does: what was written just now or, untouched, what was there before.

if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
return redis.call('HGETALL', KEYS[1])
