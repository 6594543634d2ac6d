-- Tries each command of the other scripts, on a key that does not stay.
-- A script that may not run one of them would stop half-way: Redis does not roll it back.
--
-- KEYS[1] probe: a key that nothing else uses
--
-- Answers the names of the commands that Redis refuses to this user, or does not know.

local key = KEYS[1]
local refused = {}

local function try(...)
  local answer = redis.pcall(...)
  local reason = type(answer) == 'table' and answer.err or ''
  if reason:find('ACL failure') or reason:find("The user executing the script can't") or reason:find('Unknown') then
    refused[#refused + 1] = (...)
  end
end

try('DEL', key)
if #refused > 0 then return refused end -- what is written below would stay

try('EXISTS', key)
try('EXPIRE', key, 1)
try('GET', key)
try('HDEL', key, 'field')
try('HGET', key, 'field')
try('HGETALL', key)
try('HKEYS', key)
try('HLEN', key)
try('HMGET', key, 'field')
try('SET', key, 'value', 'XX')
try('TIME')
try('TYPE', key)
try('UNLINK', key)
try('XADD', key, 'NOMKSTREAM', '*', 'field', 'value')
try('XLEN', key)
try('ZADD', key, 'XX', 0, 'member')
try('ZCARD', key)
try('ZREM', key, 'member')
try('ZSCORE', key, 'member')
try('HSET', key, 'field', 'value') -- there is none of it that writes nothing
redis.call('DEL', key)
return refused
