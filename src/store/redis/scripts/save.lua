local write_id, replaces, record, has_open_intent = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'

local stored = redis.call('HMGET', key, 'record', 'write_id')
local current = ''
if stored[1] then
  current = stored[2]
  local is_json, content = pcall(cjson.decode, stored[1])
  if not is_json or type(content) ~= 'table' or content.write_id ~= current
    or type(content.version) ~= 'number' or content.version > cjson.decode(record).version
  then
    return 'unreadable'
  end
end
if current == write_id then
  return 'saved'
end
if current ~= replaces then
  return 'conflict'
end

-- If the memory is full, an intent fails. Its successor does not: the refresh token is spent.
if not has_open_intent then
  keep()
end
redis.call('HSET', key, 'record', record, 'write_id', write_id, 'run', run())
keep()
return 'saved'
