local stored = redis.call('HMGET', key, 'record', 'write_id', 'run')
return { stored[1], stored[2], stored[3], run() }
