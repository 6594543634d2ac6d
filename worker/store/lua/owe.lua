-- Marks that a channel needs a repair, with the time of the gap.
--
-- KEYS[1] owed: what the channel needs
-- ARGV[1] the cause of the gap
--
-- Answers 1 if another program had written something else there, which is gone now; else 0.
--
-- The mark is a time in milliseconds, by Redis's clock. An older mark of the cause is moved to now:
-- only a repair that begins after the newest gap may take it away.
-- Each new mark is later than the one before, even if the clock went back a little.
-- If the clock went back by more than half a minute, the mark is moved back to now:
-- a repair waits until its mark is old enough.

-- A mark must not be lost, and has no other place.
local held = redis.call('TYPE', KEYS[1]).ok
local is_damaged = held ~= 'hash' and held ~= 'none'
if is_damaged then redis.call('DEL', KEYS[1]) end

local now = redis.call('TIME')
local at = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
local before = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or '0') or 0
if before <= at + 30000 then at = math.max(at, before + 1) end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', at))
return is_damaged and 1 or 0
