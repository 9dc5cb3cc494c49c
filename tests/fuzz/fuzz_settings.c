/*
 * Goal: no file can crash, hang or leak the settings reader; what is refused has a reason, what is
 * accepted keeps the bounds, what is refused changes nothing.
 * Method: bytes to a file in memory, read by settings_load.
 *
 * SPDX-License-Identifier: MIT
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/dynbuf.h"
#include "base/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool condition)
{
    if (!condition)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[64];
    struct settings settings = {.workers = -42};
    struct dynbuf errors;
    if (fd < 0) {
        fd = memfd_create("settings", MFD_CLOEXEC);
        expect(fd >= 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    expect(ftruncate(fd, 0) == 0);
    expect(pwrite(fd, data, size, 0) == (ssize_t)size);
    dynbuf_init(&errors, 1 << 20);
    enum sg_error error = settings_load(path, &settings, &errors);
    if (error == SG_OK) {
        expect(settings.workers >= 0 && settings.workers <= 256);
        expect(settings.booking.max_seats >= 1 && settings.booking.max_seats <= 100);
        expect(settings.postgres.backoff_min_ms <= settings.postgres.backoff_max_ms);
        expect(settings.booking.strategy <= STRATEGY_NAIVE);
        expect(strchr(settings.http.listen, ':') && settings.shard_map[0]);
    } else {
        expect(settings.workers == -42 && errors.len > 0);
    }
    dynbuf_done(&errors);
    return 0;
}
