-- Takes away the marks that a reconcile has repaired. Marks that have changed since then stay.
--
-- KEYS[1] owed: what the channel needs
-- ARGV    cause, its mark when the reconcile began, cause, mark, …
--
-- Answers how many marks are left.

for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return redis.call('HLEN', KEYS[1])
