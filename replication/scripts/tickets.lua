-- Tickets of a user on one shard: applies, in one atomic step, those changes that are not in them
-- yet.
--
--   KEYS  tickets                                         (base/rediskeys.h)
--   ARGV  epoch, then three for each operation, in order of position:
--           position  booking  event                      the user holds it
--           position  booking  ""                         not any more
--         A position of "" is a mend: it counts in any case, and `at` stays.
--   1 applied, or a replay   -2 refused: stale epoch
--
-- All operations above the `at` that is found count, also several of one position. A user without
-- tickets stays for an hour as a tombstone, so that a replay does not bring back what is gone.
-- A key that somebody spoilt is one that is not there; of a hash without position the tickets stay.
--
-- Redis judges once, at the first write of a script, whether there is memory left. So HSET, which
-- it may refuse, comes first, and what follows is never refused.
--
-- SPDX-License-Identifier: MIT

local call, argv = redis.call, ARGV
local tickets = KEYS[1]
local WIDTH = 3 -- arguments of an operation
local TOMBSTONE_S = 3600
local FIELDS = 2 -- of a tombstone: at, epoch

local found = redis.pcall('HMGET', tickets, 'at', 'epoch')
if found.err then
    call('DEL', tickets)
    found = {}
elseif not tonumber(found[2] or 0) or found[1] and (#found[1] ~= 30 or string.find(found[1], '%D'))
then
    found = {}
end
local at, epoch = found[1], argv[1]
if found[2] and found[2] ~= epoch and tonumber(found[2]) > tonumber(epoch) then
    return -2
end
local before = at or '000000000000000000000000000000'

local now = before
for i = #argv - WIDTH + 1, 2, -WIDTH do
    if argv[i] ~= '' then
        if argv[i] > now then
            now = argv[i]
        end
        break
    end
end

local begun, emptier = false, false
for i = 2, #argv, WIDTH do
    local position, booking, event = argv[i], argv[i + 1], argv[i + 2]
    if position == '' or position > before then
        if event == '' then
            if not begun then
                call('HSET', tickets, 'at', now, 'epoch', epoch)
            end
            call('HDEL', tickets, booking)
            emptier = true
        elseif begun then
            call('HSET', tickets, booking, event)
        else
            call('HSET', tickets, 'at', now, 'epoch', epoch, booking, event)
        end
        begun = true
    end
end

if emptier and call('HLEN', tickets) == FIELDS then
    call('EXPIRE', tickets, TOMBSTONE_S)
elseif begun and at then
    call('PERSIST', tickets)
end
return 1
