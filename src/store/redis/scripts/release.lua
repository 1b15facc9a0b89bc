local owner = ARGV[1]

if redis.call('HGET', key, 'owner') ~= owner then
  return 0
end
redis.call('HDEL', key, 'owner', 'lease_until_ms', 'lease_ms')
-- Whoever may not publish lets go of the lock all the same, and the others find out a little later.
redis.pcall('PUBLISH', key, '')
return 1
