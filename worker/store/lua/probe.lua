-- Tries each command of the worker, on a key that does not stay.
-- A script that may not run one of them would stop half-way: Redis does not roll it back.
-- On a replica nothing is written, and every command is tried: a user is asked for first.
--
-- KEYS[1] probe: a key that nothing else uses
-- ARGV[1] instead of it, on a replica: in a cluster that answers only what names no key
--
-- Answers why Redis takes no writes now ('' if it does: it may be full, or a replica),
-- then the names of the commands that it refuses to this user, or does not know.

local key = KEYS[1] or ARGV[1]
local answers = { '' }

local function try(...)
  local answer = redis.pcall(...)
  local reason = type(answer) == 'table' and answer.err or ''
  if reason:find('ACL failure') or reason:find("The user executing the script can't") or reason:find('Unknown') then
    answers[#answers + 1] = (...)
    reason = ''
  end
  return reason
end

-- The first write of a script is the one that a full Redis refuses. This one writes nothing.
answers[1] = try('SET', key, 'value', 'XX')
local is_replica = answers[1]:find('READONLY') or answers[1]:find('non local key') -- the second one in a cluster
if answers[1] ~= '' and not is_replica then return answers end
try('DEL', key)
if #answers > 1 then return answers end -- what is written below would stay

try('EXISTS', key)
try('EXPIRE', key, 1)
try('GET', key)
try('HDEL', key, 'field')
try('HGET', key, 'field')
try('HGETALL', key)
try('HKEYS', key)
try('HLEN', key)
try('HMGET', key, 'field')
try('HSCAN', key, 0)
try('MGET', key)
try('SCARD', key)
try('SCAN', '0', 'COUNT', 1)
try('SMEMBERS', key)
try('SMISMEMBER', key, 'member')
try('SREM', key, 'member')
try('TIME')
try('PTTL', key)
try('TYPE', key)
try('UNLINK', key)
try('XADD', key, 'NOMKSTREAM', '*', 'field', 'value')
try('XDEL', key, '0-1')
try('XLEN', key)
try('XRANGE', key, '-', '+', 'COUNT', 1)
try('XREVRANGE', key, '+', '-', 'COUNT', 1)
try('ZADD', key, 'XX', 0, 'member')
try('ZCARD', key)
try('ZMSCORE', key, 'member')
try('ZRANGE', key, 0, 0)
try('ZRANGEBYSCORE', key, 0, 0)
try('ZREM', key, 'member')
try('ZREVRANGEBYSCORE', key, 0, 0)
try('ZSCAN', key, 0)
try('ZSCORE', key, 'member')
try('HSET', key, 'field', 'value') -- there is none of it that writes nothing
try('HSETNX', key, 'field', 'value')
try('INCRBY', key, 1) -- from here on the key has the wrong type: nothing is written
try('SADD', key, 'member')
redis.pcall('DEL', key)
return answers
