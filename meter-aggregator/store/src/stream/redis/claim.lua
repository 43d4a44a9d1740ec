#!lua flags=allow-oom
-- Says whose the stream is, where nobody said so yet; gives whose it is. Also where there
-- is no room: what is read then makes some.
redis.call('SET', KEYS[1], ARGV[1], 'NX')
return redis.call('GET', KEYS[1])
