-- What wrk sends when it is not one constant GET, and its results as one line of JSON on stdout.
--
--   wrk -s wrk.lua URL                                        the constant GET of the URL
--   wrk -s wrk.lua URL -- walk EVENTS_FILE COLS FIRST_SEAT THREADS
--   wrk -s wrk.lua URL -- one EVENT ROW COL                   POST /book, always this seat
--
-- walk: POST /book where every request has a seat of its own, so that every one is a sale. The n-th
-- request of all threads takes seat FIRST_SEAT + n / events of event n % events. The events file
-- has lines "ID [SHARD]". Answers are not looked at one by one, which would cost more than sending
-- them: wrk itself counts the statuses above 399.
--
-- SPDX-License-Identifier: MIT

local thread_count = 0

function setup(thread)
    thread:set("thread_index", thread_count)
    thread_count = thread_count + 1
end

local function booking(event, user, row, col)
    local body = '{"eventId":' .. event .. ',"userId":"u-' .. user .. '","seats":[{"row":' .. row
        .. ',"col":' .. col .. '}]}'
    return 'POST /book HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n'
        .. 'Content-Length: ' .. #body .. '\r\n\r\n' .. body
end

local function walk(events_file, cols, first_seat, threads)
    local events, turn = {}, thread_index
    for line in io.lines(events_file) do
        events[#events + 1] = line:match("^%d+")
    end
    return function()
        local seat = first_seat - 1 + math.floor(turn / #events)
        local event = events[turn % #events + 1]
        turn = turn + threads
        return booking(event, thread_index, math.floor(seat / cols) + 1, seat % cols + 1)
    end
end

function init(args)
    if args[1] == "walk" then
        request = walk(args[2], tonumber(args[3]), tonumber(args[4]), tonumber(args[5]))
    elseif args[1] == "one" then
        local constant = booking(args[2], thread_index, args[3], args[4])
        request = function() return constant end
    end   -- else request stays nil and wrk sends its constant
end

function done(summary, latency)
    local errors = summary.errors
    print(string.format('{"requests": %d, "seconds": %.4f, "refused": %d, "broken": %d, '
        .. '"timeouts": %d, "p50": %.4f, "p90": %.4f, "p99": %.4f, "p99.9": %.4f, "max": %.4f}',
        summary.requests, summary.duration / 1e6, errors.status,
        errors.connect + errors.read + errors.write, errors.timeout,
        latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
        latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
