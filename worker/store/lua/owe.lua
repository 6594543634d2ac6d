-- Mark that a channel needs a repair, and since when, by Redis's clock.
--
-- KEYS[1] what the channel owes   ARGV[1] the cause
-- The mark is a time in milliseconds. One that is there already is moved to now: the repair must begin
-- after the newest gap, and one that has begun must not be taken for the repair of this one. So a mark never has the
-- same time twice, whatever the clock does.

local now = redis.call('TIME')
local at = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0')
at = string.format('%d', math.max(at, before + 1))
redis.call('HSET', KEYS[1], ARGV[1], at)
