-- Take one request from the budget that all processes of a keyset share (the generic cell rate algorithm: the key
-- holds the time, in microseconds of Redis's clock, at which the budget would be whole again).
--
-- KEYS[1] budget   ARGV[1] microseconds a request is worth   ARGV[2] requests that may be taken at once
-- ARGV[3] microseconds for which PubNub wants no request at all (0: it said nothing); then none is taken
-- Answers the microseconds to wait before the request may be sent. The request is reserved by this call.

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
