-- Take back the marks that a reconcile has repaid; those that are newer than it saw stay.
--
-- KEYS[1] what the channel owes   ARGV cause, its time as it was when the reconcile began, cause, time, …
-- Answers how many marks are left.

for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return redis.call('HLEN', KEYS[1])
