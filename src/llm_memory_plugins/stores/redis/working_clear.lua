-- Erase a namespace.
-- ARGV: its name.
-- Returns how many items there were.
local count = redis.call('HLEN', items)
redis.call('DEL', items, contents, leaves, ends, meta)
redis.call('ZREM', spaces, ARGV[3])
return count
