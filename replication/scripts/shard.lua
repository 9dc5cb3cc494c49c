-- The hash of a shard: who writes, which generation is read, up to where it goes.
--
--   KEYS  shard                                           (base/rediskeys.h)
--   ARGV  "claim"   epoch
--         "mark"    epoch  generation  lsn  "live" or "stale"
--         "switch"  epoch  generation  lsn  timeline  system
--         "follow"  epoch  generation  lsn  timeline
--         "tell"    epoch  status
--   1 done   -2 refused: a higher epoch is there; claim: also the same, for it may be another's
--   -3 the hash is not the one that was claimed (FLUSHALL); mark, follow: another generation, or none
--
-- A follow says that the keys, as they are, are those of an LSN of another timeline: after a
-- switchover, before anything of the new timeline is applied. How live they are, it does not say.
--
-- Only a claim makes the hash, so that keys of a generation that were lost while it was being built
-- are noticed at the latest by its switch.
--
-- Each is one HSET, which Redis may refuse for lack of memory: then nothing has changed.
--
-- SPDX-License-Identifier: MIT

local what, epoch = ARGV[1], ARGV[2]
local found = redis.call('HMGET', KEYS[1], 'epoch', 'gen', 'beat')
if found[1] and tonumber(found[1]) > tonumber(epoch) then
    return -2
end
if what == 'claim' and found[1] and tonumber(found[1]) == tonumber(epoch) then
    return -2
end
if what ~= 'claim' and (not found[1] or tonumber(found[1]) < tonumber(epoch)) then
    return -3
end
local beat = (found[3] or 0) + 1

if what == 'claim' then
    redis.call('HSET', KEYS[1], 'epoch', epoch)
elseif what == 'mark' then
    if found[2] ~= ARGV[3] then
        return -3
    end
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'lsn', ARGV[4], 'state', ARGV[5], 'beat', beat)
elseif what == 'switch' then
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'gen', ARGV[3], 'lsn', ARGV[4],
        'timeline', ARGV[5], 'system', ARGV[6], 'state', 'live', 'beat', beat)
elseif what == 'follow' then
    if found[2] ~= ARGV[3] then
        return -3
    end
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'lsn', ARGV[4], 'timeline', ARGV[5])
elseif what == 'tell' then
    redis.call('HSET', KEYS[1], 'epoch', epoch, 'status', ARGV[3])
else
    return redis.error_reply('ERR shard.lua: no such command')
end
return 1
