local owner = ARGV[1]

if redis.call('HGET', key, 'owner') ~= owner then
  return 0
end
redis.call('HDEL', key, 'owner', 'lease_until_ms', 'lease_ms')
-- Without the permission to publish, the lock is released too, and the waiters notice it a little later.
redis.pcall('PUBLISH', key, '')
return 1
