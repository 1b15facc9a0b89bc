-- Calls each command that the other scripts need, in a way that changes nothing, and returns those that may not be called.
local key = KEYS[1]
local calls = {
  { 'HDEL', key, '' },
  { 'HGET', key, 'owner' },
  { 'HINCRBY', key, 'fence', '' },
  { 'HMGET', key, 'owner' },
  { 'HSET', key, 'owner', '', '' },
  { 'INFO', 'replication' },
  { 'PERSIST', key },
  { 'TIME' },
}
local missing = {}
for _, call in ipairs(calls) do
  local answer = redis.pcall(unpack(call))
  local refusal = type(answer) == 'table' and string.lower(answer.err or '') or ''
  if string.find(refusal, 'unknown', 1, true) or string.find(refusal, "can't run", 1, true)
    or string.find(refusal, 'not allowed from', 1, true) or string.find(refusal, 'noperm', 1, true)
  then
    table.insert(missing, call[1])
  end
end
return missing
