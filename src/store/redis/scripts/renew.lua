local owner, lease_ms = ARGV[1], tonumber(ARGV[2])

local lease = redis.call('HMGET', key, 'owner', 'lease_until_ms')
-- An expired lease is lost even if the lock is free: another process may have held it meanwhile.
if lease[1] ~= owner or (tonumber(lease[2]) or 0) <= now_ms() then
  return 0
end
keep()
lease_for(lease_ms)
return 1
