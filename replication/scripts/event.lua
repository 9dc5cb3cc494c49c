-- Counters of an event: applies, in one atomic step, those changes that are not in them yet.
--
--   KEYS  counters, changes, watched                      (base/rediskeys.h)
--   ARGV  epoch, history, then four for each operation, in order of position:
--           position  d_held  d_booked  "x:4,5;.:9"       seats changed (the text is for readers);
--                                                         perhaps with a note, " BOOKING STATUS"
--           position  rows    cols      "grid"            the event was made, with this grid
--           position  rows    cols      "regrid"          it was there before, and has this one now
--           position  0       0         "gone"            it was deleted
--           position  held    booked    "seed"            counters as of that position, in place of
--                                                         all that is there; a grid comes next
--   1 applied, or a replay   -1 likewise, but the event is to be healed   -2 refused: stale epoch
--
-- All operations above the `at` that is found count, also several of one position. A seed, always
-- the first of its list, counts if the list reaches `at` or beyond: then it has all of the key's
-- changes. Deltas to a tombstone change nothing. To be healed is a key that is not there when
-- deltas or a regrid come, or that lacks a counter; and an event that comes back from a tombstone,
-- because what was sold of it is not known any more; the tombstone of one that had sold something
-- stays for good, for bookings may outlive their event. Of such an event the grid alone is kept: so
-- readers see no counters, and every command says -1 again, also a replay, until a seed comes. A
-- key that somebody spoilt is one that is not there.
--
-- Redis judges once, at the first write of a script, whether there is memory left. So HSET, which
-- it may refuse, comes first, and what follows is never refused.
--
-- SPDX-License-Identifier: MIT

local call, argv = redis.call, ARGV
local counters = KEYS[1]
local WIDTH = 4 -- arguments of an operation
local TOMBSTONE_S = 3600

local found = redis.pcall('HMGET', counters, 'at', 'epoch', 'total', 'held', 'booked')
local spoilt = found.err or found[1] and (#found[1] ~= 30 or string.find(found[1], '%D'))
for i = 2, 5 do
    spoilt = spoilt or found[i] and not (found[1] and tonumber(found[i]))
end
if spoilt then
    call('DEL', counters)
    found = {}
end
local at, epoch = found[1], argv[1]
if found[2] and found[2] ~= epoch and tonumber(found[2]) > tonumber(epoch) then
    return -2
end

-- `total` is false where there are no counters: no key, a tombstone, or one to be healed.
local held, booked = found[4], found[5]
local total = at and held and booked and found[3]
local tombstone = at and not (held or booked or found[3])
local there = total or tombstone

-- What of the list is new.
local first, last = 3, #argv - WIDTH + 1
local nothing_new = at and not there and -1 or 1
local seeded = argv[first + 3] == 'seed'
if at and seeded then
    if argv[last] < at then
        return nothing_new
    end
elseif at then
    while argv[first] <= at do
        first = first + WIDTH
        if first > last then
            return nothing_new
        end
    end
end

-- Follow it.
local lost, rows, cols = false, false, false
local sold = false -- when it was deleted, or nobody knows
for i = first, last, WIDTH do
    local what = argv[i + 3]
    if what == 'grid' or what == 'regrid' then
        if not total then
            lost = lost or at or there or what == 'regrid'
            held, booked = 0, 0
        end
        rows, cols, there = argv[i + 1], argv[i + 2], true
        total = rows * cols
    elseif what == 'seed' then
        total, held, booked = 0, argv[i + 1], argv[i + 2]
    elseif what == 'gone' then
        if total or not there then
            sold = at and not there or total and (lost or held + booked > 0)
        end
        total, rows, there = false, false, true
    elseif total then
        held, booked = held + argv[i + 1], booked + argv[i + 2]
    elseif not there then
        lost = true
    end
end
lost = lost and total
if not there then
    return -1
end

-- Write it.
local now, grid = argv[last], false
if rows then
    grid = call('HMGET', counters, 'rows', 'cols')
    if lost then
        call('HSET', counters, 'at', now, 'epoch', epoch, 'total', total,
            'rows', rows, 'cols', cols)
        call('HDEL', counters, 'available', 'held', 'booked')
    else
        call('HSET', counters, 'at', now, 'epoch', epoch, 'total', total,
            'available', total - held - booked, 'held', held, 'booked', booked,
            'rows', rows, 'cols', cols)
    end
    if tombstone then
        call('HDEL', counters, 'deleted')
        call('PERSIST', counters)
    end
elseif total then
    call('HSET', counters, 'at', now, 'epoch', epoch,
        'available', total - held - booked, 'held', held, 'booked', booked)
elseif not tombstone then
    call('HSET', counters, 'at', now, 'epoch', epoch, 'deleted', 1)
    call('HDEL', counters, 'total', 'available', 'held', 'booked', 'rows', 'cols')
    if not sold then
        call('EXPIRE', counters, TOMBSTONE_S)
    end
else
    call('HSET', counters, 'at', now, 'epoch', epoch)
end
local answer = lost and -1 or 1

-- Tell it to those who watch.
local watched_ms = call('PTTL', KEYS[3])
if watched_ms == -2 then
    return answer
end
local changes, history = KEYS[2], tonumber(argv[2])
local name = string.match(counters, '}:(.*)$')
local lines = {}

local function id_of(position)
    return string.match(string.sub(position, 1, 20), '^0*(%d+)$') .. '-' ..
        string.match(string.sub(position, 21), '^0*(%d+)$')
end

local function add(prev, position, what, note)
    local id = id_of(position)
    local available = total and total - held - booked or 0
    local line = table.concat({name, prev, id, total or 0, available, total and held or 0,
        total and booked or 0, what}, ' ')
    local entry = {'XADD', changes, 'MAXLEN', '~', history, id, 'c', line}
    if note then
        entry[9], entry[10] = 'b', note
        lines[#lines + 1] = 'b ' .. note
    end
    local added = redis.pcall(unpack(entry))
    if type(added) == 'table' and added.err then -- what is there is ahead: it is of no use
        call('DEL', changes)
        redis.pcall(unpack(entry))
    end
    lines[#lines + 1] = line
    return id
end

local prev = at and id_of(at) or '0-0'
if seeded or (last - first) / WIDTH >= history then
    call('DEL', changes)
    add(prev, now, total and 'resync' or 'gone')
else
    held, booked = found[4], found[5]
    total = at and held and booked and found[3]
    rows, cols = grid and grid[1], grid and grid[2]
    for i = first, last, WIDTH do
        local what = argv[i + 3]
        local seats, note = string.match(what, '^(%S+) (.+)$')
        what = seats or what
        if what == 'grid' or what == 'regrid' then
            local same = total and rows == argv[i + 1] and cols == argv[i + 2]
            if not total then
                held, booked = 0, 0
            end
            rows, cols = argv[i + 1], argv[i + 2]
            total = rows * cols
            what = same and '-' or 'resync'
        elseif what == 'gone' then
            total = false
        elseif total then
            held, booked = held + argv[i + 1], booked + argv[i + 2]
        else
            what = '-'
        end
        prev = add(prev, argv[i], what, note)
    end
end
if watched_ms > 0 then
    call('PEXPIRE', changes, watched_ms)
end
call('PUBLISH', string.gsub(KEYS[3], 'watched$', 'live'), table.concat(lines, '\n'))
return answer
