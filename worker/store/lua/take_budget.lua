-- Reserves one request of the budget that all processes of a keyset share.
-- It is the generic cell rate algorithm.
-- The key holds '<debt> <time>', both in microseconds: at that time, by Redis's clock, the budget
-- was that far from whole.
--
-- KEYS[1] budget
-- ARGV[1] interval: microseconds between two requests
-- ARGV[2] burst: requests that may be sent at once
-- ARGV[3] hold: microseconds in which PubNub wants no request (0: PubNub did not say).
--         With a hold no request is reserved.
--
-- Answers the microseconds to wait before the reserved request may be sent.
--
-- The debt is kept, and not the time at which the budget will be whole: if the clock steps back,
-- that time would be as far away as the step. So the debt only ever shrinks by time that passed.
-- Across a step back no time counts as passed. Across a step forward the debt is forgotten:
-- PubNub names its hold again if it still wants it.

local now = redis.call('TIME')
now = tonumber(now[1]) * 1000000 + tonumber(now[2])
local interval, burst, hold = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local debt, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
local passed = math.max(0, now - tonumber(at or now))
debt = math.max(0, tonumber(debt or 0) - passed)

if hold > 0 then
  debt = math.max(debt, hold + interval * (burst - 1))
else
  debt = debt + interval
end
local life = string.format('%d', math.ceil(debt / 1000) + 1000)
redis.call('SET', KEYS[1], string.format('%d %d', debt, now), 'PX', life)
return math.max(0, debt - interval * burst)
