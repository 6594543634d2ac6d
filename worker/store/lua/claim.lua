-- Claims a namespace that has no owner: writes all fields, or none.
--
-- KEYS[1] meta
-- ARGV    field, value, field, value, …
--
-- Answers what meta holds, as HGETALL does: the fields just written, or those of another owner.

if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], unpack(ARGV)) end
return redis.call('HGETALL', KEYS[1])
