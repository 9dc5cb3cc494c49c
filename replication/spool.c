/*
 * Spool: where the changes of a streamed transaction wait for its commit. In: changes as they come
 * in stream blocks, aborts. Out: the changes that stay, in order, once the commit is there. Owns
 * one nameless file a transaction, the numbers of its aborted parts, a buffer for writing and one
 * for reading. Hides the form of the file:
 *
 *   record   subxid4 len4 message      native order; message = type1 and what follows its xid4
 *
 * Blocks of different transactions take turns, so one write buffer is enough: it belongs to the
 * transaction of the block (`writer`) and goes to its file when it is full, when another's turn
 * comes and when the replay begins. What is replayed leaves the list: nothing can be added to it.
 *
 * SPDX-License-Identifier: MIT
 */
#include "replication/spool.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include "replication/netint.h"

#define BUFFER_SIZE ((size_t)128 * 1024)
#define HEADER_LEN 8        /* subxid4 len4 */
#define PREFIX_LEN 5        /* type1 xid4, of a message in a stream block */
#define ABORTED_FIRST_MAX 8 /* the list of aborted parts doubles from here */

struct transaction {
    LIST_ENTRY(transaction) link;
    uint32_t xid;
    int fd;               /* -1 until the first write */
    int64_t bytes;        /* of all its records, in the file and in the write buffer */
    enum sg_error broken; /* SG_OK, or why it must not be replayed */
    uint32_t *aborted;    /* subtransactions; sorted when the replay begins */
    size_t aborted_count;
    size_t aborted_max;
};

struct spool {
    int64_t max_bytes;
    int64_t bytes;
    LIST_HEAD(, transaction) transactions; /* all but the one that is replayed */
    struct transaction *writer;            /* whose bytes the write buffer holds, or NULL */
    char *write_buffer;                    /* BUFFER_SIZE; NULL until used */
    size_t write_len;
    struct transaction *replayed; /* NULL: no replay under way */
    char *read_buffer;            /* NULL until used */
    size_t read_size;
    size_t read_at;    /* the next record */
    size_t read_end;   /* end of what was read */
    int64_t file_at;   /* where in the file the next read goes */
    int64_t unread;    /* bytes of records from read_at on */
    uint32_t last_xid; /* the last answer of is_aborted */
    bool last_aborted;
};

/* --- transactions ---------------------------------------------------------------------------- */

static struct transaction *find(const struct spool *spool, uint32_t xid)
{
    struct transaction *transaction;
    if (spool->writer && spool->writer->xid == xid)
        return spool->writer;
    LIST_FOREACH (transaction, &spool->transactions, link)
        if (transaction->xid == xid)
            return transaction;
    return NULL;
}

static struct transaction *find_or_add(struct spool *spool, uint32_t xid)
{
    struct transaction *transaction = find(spool, xid);
    if (transaction)
        return transaction;
    transaction = calloc(1, sizeof *transaction);
    if (!transaction)
        return NULL;
    transaction->xid = xid;
    transaction->fd = -1;
    LIST_INSERT_HEAD(&spool->transactions, transaction, link);
    return transaction;
}

static void drop_buffered(struct spool *spool)
{
    spool->writer = NULL;
    spool->write_len = 0;
}

/* It is on the list no more. */
static void release(struct spool *spool, struct transaction *transaction)
{
    spool->bytes -= transaction->bytes;
    if (transaction->fd >= 0)
        close(transaction->fd);
    free(transaction->aborted);
    free(transaction);
}

static void forget(struct spool *spool, struct transaction *transaction)
{
    if (spool->writer == transaction)
        drop_buffered(spool);
    LIST_REMOVE(transaction, link);
    release(spool, transaction);
}

/* --- writing --------------------------------------------------------------------------------- */

/* A file that no name leads to; -1 with errno. */
static int open_nameless(void)
{
    char path[PATH_MAX];
    const char *folder = getenv("TMPDIR");
    if (!folder || !folder[0])
        folder = "/tmp";
    int len = snprintf(path, sizeof path, "%s/seatgrid-spool-XXXXXX", folder);
    if (len < 0 || (size_t)len >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static bool write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t written = write(fd, bytes, len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        len -= (size_t)written;
    }
    return true;
}

/* To the file, past the buffer. */
static bool put_file(struct transaction *transaction, const char *bytes, size_t len)
{
    if (transaction->fd < 0)
        transaction->fd = open_nameless();
    if (transaction->fd >= 0 && write_all(transaction->fd, bytes, len))
        return true;
    transaction->broken = SG_IO;
    return false;
}

/* False if the bytes of the writer could not be written; it is broken then. */
static bool flush(struct spool *spool)
{
    size_t len = spool->write_len;
    spool->write_len = 0;
    return len == 0 || put_file(spool->writer, spool->write_buffer, len);
}

static bool append(struct spool *spool, const char *bytes, size_t len)
{
    if (len > BUFFER_SIZE - spool->write_len && !flush(spool))
        return false;
    if (len > BUFFER_SIZE)
        return put_file(spool->writer, bytes, len);
    memcpy(spool->write_buffer + spool->write_len, bytes, len);
    spool->write_len += len;
    return true;
}

/* Another's bytes go to their file; should that fail, its replay says so. */
static void set_writer(struct spool *spool, struct transaction *transaction)
{
    if (spool->writer == transaction)
        return;
    if (spool->writer)
        flush(spool);
    spool->writer = transaction;
}

static enum sg_error add_record(struct spool *spool, struct transaction *transaction,
                                uint32_t subxid, const char *bytes, size_t len)
{
    uint32_t message_len = (uint32_t)(len - PREFIX_LEN + 1);
    int64_t record_len = HEADER_LEN + (int64_t)message_len;
    if (record_len > spool->max_bytes - spool->bytes)
        return SG_OVERLOADED;
    if (!spool->write_buffer && !(spool->write_buffer = malloc(BUFFER_SIZE)))
        return SG_NO_MEMORY;
    set_writer(spool, transaction);
    char head[HEADER_LEN + 1];
    memcpy(head, &subxid, 4);
    memcpy(head + 4, &message_len, 4);
    head[HEADER_LEN] = bytes[0];
    if (!append(spool, head, sizeof head) || !append(spool, bytes + PREFIX_LEN, len - PREFIX_LEN))
        return SG_IO;
    transaction->bytes += record_len;
    spool->bytes += record_len;
    return SG_OK;
}

enum sg_error spool_add(struct spool *spool, uint32_t xid, uint32_t subxid, const char *bytes,
                        size_t len)
{
    if (len < PREFIX_LEN || len > INT32_MAX || bytes[0] == 'O' ||
        netint_get_u32(bytes + 1) != subxid)
        return SG_MALFORMED;
    struct transaction *transaction = find_or_add(spool, xid);
    if (!transaction)
        return SG_NO_MEMORY;
    if (transaction->broken == SG_OK)
        transaction->broken = add_record(spool, transaction, subxid, bytes, len);
    return transaction->broken;
}

/* --- aborts ---------------------------------------------------------------------------------- */

static bool add_aborted(struct transaction *transaction, uint32_t subxid)
{
    if (transaction->aborted_count == transaction->aborted_max) {
        size_t max = transaction->aborted_max ? transaction->aborted_max * 2 : ABORTED_FIRST_MAX;
        uint32_t *aborted = realloc(transaction->aborted, max * sizeof *aborted);
        if (!aborted)
            return false;
        transaction->aborted = aborted;
        transaction->aborted_max = max;
    }
    transaction->aborted[transaction->aborted_count++] = subxid;
    return true;
}

void spool_abort(struct spool *spool, uint32_t xid, uint32_t subxid)
{
    struct transaction *transaction = find(spool, xid);
    if (!transaction)
        return;
    if (subxid == xid)
        forget(spool, transaction);
    else if (!add_aborted(transaction, subxid))
        transaction->broken = SG_NO_MEMORY;
}

static int compare_xids(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

/* Changes of one part come in a row, so the last answer often serves again. */
static bool is_aborted(struct spool *spool, uint32_t subxid)
{
    const struct transaction *transaction = spool->replayed;
    if (transaction->aborted_count == 0)
        return false;
    if (subxid != spool->last_xid) {
        spool->last_xid = subxid;
        spool->last_aborted = bsearch(&subxid, transaction->aborted, transaction->aborted_count,
                                      sizeof subxid, compare_xids) != NULL;
    }
    return spool->last_aborted;
}

/* --- replay ---------------------------------------------------------------------------------- */

enum sg_error spool_replay_begin(struct spool *spool, uint32_t xid)
{
    struct transaction *transaction = find(spool, xid);
    assert(!spool->replayed);
    if (!transaction)
        return SG_NOT_FOUND;
    if (spool->writer == transaction) {
        flush(spool);
        spool->writer = NULL;
    }
    if (transaction->broken != SG_OK)
        return transaction->broken;
    if (transaction->aborted_count > 1)
        qsort(transaction->aborted, transaction->aborted_count, sizeof *transaction->aborted,
              compare_xids);
    LIST_REMOVE(transaction, link);
    spool->replayed = transaction;
    spool->read_at = spool->read_end = 0;
    spool->file_at = 0;
    spool->unread = transaction->bytes;
    spool->last_xid = transaction->xid;
    spool->last_aborted = false;
    return SG_OK;
}

static enum sg_error make_room(struct spool *spool, size_t want)
{
    size_t size = want > BUFFER_SIZE ? want : BUFFER_SIZE;
    size_t have = spool->read_end - spool->read_at;
    if (have > 0)
        memmove(spool->read_buffer, spool->read_buffer + spool->read_at, have);
    spool->read_at = 0;
    spool->read_end = have;
    if (size <= spool->read_size)
        return SG_OK;
    char *buffer = realloc(spool->read_buffer, size);
    if (!buffer)
        return SG_NO_MEMORY;
    spool->read_buffer = buffer;
    spool->read_size = size;
    return SG_OK;
}

/* At least `want` bytes from read_at on, and as many more as the buffer takes. */
static enum sg_error fill(struct spool *spool, size_t want)
{
    if (spool->read_end - spool->read_at >= want)
        return SG_OK;
    if ((int64_t)want > spool->unread)
        return SG_IO;
    enum sg_error error = make_room(spool, want);
    if (error != SG_OK)
        return error;
    while (spool->read_end < want) {
        ssize_t got = pread(spool->replayed->fd, spool->read_buffer + spool->read_end,
                            spool->read_size - spool->read_end, spool->file_at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return SG_IO;
        spool->read_end += (size_t)got;
        spool->file_at += got;
    }
    return SG_OK;
}

/* Past a record that the buffer may hold a part of. */
static void skip(struct spool *spool, size_t len)
{
    size_t have = spool->read_end - spool->read_at;
    spool->unread -= (int64_t)len;
    if (len <= have) {
        spool->read_at += len;
        return;
    }
    spool->file_at += (int64_t)(len - have);
    spool->read_at = spool->read_end = 0;
}

static void end_replay(struct spool *spool)
{
    if (spool->replayed)
        release(spool, spool->replayed);
    spool->replayed = NULL;
    if (spool->read_size > BUFFER_SIZE) {
        free(spool->read_buffer);
        spool->read_buffer = NULL;
        spool->read_size = 0;
    }
}

enum sg_error spool_replay_next(struct spool *spool, const char **ret_bytes, size_t *ret_len)
{
    assert(spool->replayed);
    while (spool->unread > 0) {
        uint32_t subxid, len;
        enum sg_error error = fill(spool, HEADER_LEN);
        if (error != SG_OK)
            return error;
        memcpy(&subxid, spool->read_buffer + spool->read_at, 4);
        memcpy(&len, spool->read_buffer + spool->read_at + 4, 4);
        size_t record_len = HEADER_LEN + (size_t)len;
        if ((int64_t)record_len > spool->unread)
            return SG_IO;
        if (is_aborted(spool, subxid)) {
            skip(spool, record_len);
            continue;
        }
        error = fill(spool, record_len);
        if (error != SG_OK)
            return error;
        *ret_bytes = spool->read_buffer + spool->read_at + HEADER_LEN;
        *ret_len = len;
        skip(spool, record_len);
        return SG_OK;
    }
    end_replay(spool);
    return SG_NOT_FOUND;
}

/* --- the whole ------------------------------------------------------------------------------- */

struct spool *spool_new(int64_t max_bytes)
{
    struct spool *spool = calloc(1, sizeof *spool);
    if (!spool)
        return NULL;
    spool->max_bytes = max_bytes;
    LIST_INIT(&spool->transactions);
    return spool;
}

void spool_reset(struct spool *spool)
{
    drop_buffered(spool);
    end_replay(spool);
    while (!LIST_EMPTY(&spool->transactions))
        forget(spool, LIST_FIRST(&spool->transactions));
}

void spool_free(struct spool *spool)
{
    if (!spool)
        return;
    spool_reset(spool);
    free(spool->write_buffer);
    free(spool->read_buffer);
    free(spool);
}

int64_t spool_bytes(const struct spool *spool)
{
    return spool->bytes;
}
