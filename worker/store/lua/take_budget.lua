-- Reserves one request of the budget that all processes of a keyset share.
-- It is the generic cell rate algorithm.
-- The key holds when the budget will be whole again, in microseconds of Redis's clock.
--
-- KEYS[1] budget
-- ARGV[1] interval: microseconds between two requests
-- ARGV[2] burst: requests that may be sent at once
-- ARGV[3] hold: microseconds in which PubNub wants no request (0: PubNub did not say).
--         With a hold no request is reserved.
--
-- Answers the microseconds to wait before the reserved request may be sent.

local now = redis.call('TIME')
now = tonumber(now[1]) * 1000000 + tonumber(now[2])
local interval, burst, hold = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local whole = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)

if hold > 0 then
  whole = math.max(whole, now + hold + interval * (burst - 1))
else
  whole = whole + interval
end
redis.call('SET', KEYS[1], string.format('%d', whole), 'PX', string.format('%d', math.ceil((whole - now) / 1000) + 1000))
return math.max(0, whole - interval * burst - now)
