#!lua flags=allow-oom
-- Makes the group, to which all that is there is new, and the stream. Also where there is
-- no room: what is read then makes some.
return redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
