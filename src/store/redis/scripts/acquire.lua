local owner, lease_ms = ARGV[1], tonumber(ARGV[2])

-- The key never expires, so that the policies for keys that do cannot evict it.
local policy = info('memory', 'maxmemory_policy') or ''
if (info('memory', 'maxmemory') or '0') ~= '0' and string.sub(policy, 1, 8) == 'allkeys-' then
  return redis.error_reply('EVICTION ' .. policy)
end

local lease = redis.call('HMGET', key, 'owner', 'lease_until_ms', 'lease_ms')
local left_ms = (tonumber(lease[2]) or 0) - now_ms()
local is_over = not lease[1] or left_ms <= 0
if not is_over and lease[1] ~= owner then
  -- If the clock was set back, a lease lasts at most its full length from now.
  local longest_ms = tonumber(lease[3]) or lease_ms
  if left_ms > longest_ms then
    left_ms = longest_ms
    keep()
    lease_for(left_ms)
  end
  return { 0, left_ms }
end

keep()
-- The same owner asks again if the answer was lost.
if is_over then
  redis.call('HINCRBY', key, 'fence', 1)
end
redis.call('HSET', key, 'owner', owner)
lease_for(lease_ms)
return { 1, tonumber(redis.call('HGET', key, 'fence')) }
