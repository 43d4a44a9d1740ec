-- Takes leases of a tenant back. ARGV: how many; then id, spent, age of each.

local marker = read_marker()
now = math.max(time_ms(), marker and marker.seen or 0)
close_all(2, tonumber(ARGV[1]))
store()
return 0
