-- {now in us, ms that are left, items, open, done, abandoned, evicted for capacity, evicted by ttl}
local answer = {now, settle(0), redis.call('HLEN', items)}
for i, count in ipairs(redis.call('HMGET', meta, 'open', 'done', 'abandoned', 'capacity', 'ttl')) do
  answer[3 + i] = tonumber(count or 0)
end
return answer
