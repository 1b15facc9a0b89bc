local key = KEYS[1]

local function info(section, field)
  return string.match(redis.call('INFO', section), field .. ':([^\r\n]*)')
end

-- A replica lags behind, and loses writes to it.
if info('replication', 'role') == 'slave' then
  return redis.error_reply('READONLY the server is a replica')
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function lease_for(ms)
  redis.call('HSET', key, 'lease_until_ms', string.format('%.0f', now_ms() + ms), 'lease_ms', string.format('%.0f', ms))
end

-- Changes with each start of the server and each change of its role, when writes may have been lost.
local function run()
  return (info('server', 'run_id') or '') .. ':' .. (info('replication', 'master_replid') or '')
end

-- Removes an expiry of the key. It is also a write, after which a script is not aborted if the memory is full.
local function keep()
  redis.call('PERSIST', key)
end
