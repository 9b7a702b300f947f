-- Everything there is: {now in us, ids and lines, ids and contents}.
settle(0)
return {now, redis.call('HGETALL', items), redis.call('HGETALL', contents)}
