/*
 * Ports and their owners, from bind() and /proc. See ports.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "dev/ports.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "dev/process.h"

#define STATE_LISTEN 0x0a

static struct sockaddr_in address_of(int port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

size_t port_ask(int port, const char *request, size_t len, int64_t timeout_ms, char *ret_answer,
                size_t size)
{
    struct sockaddr_in address = address_of(port);
    struct timeval timeout = clock_timeval_us(timeout_ms * 1000);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    ssize_t got = -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        send(fd, request, len, MSG_NOSIGNAL) == (ssize_t)len)
        got = recv(fd, ret_answer, size, 0);
    close(fd);
    return got > 0 ? (size_t)got : 0;
}

bool port_is_free(int port)
{
    struct sockaddr_in address = address_of(port);
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    bool is_free = bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return is_free;
}

/* The inode of the socket that listens on the port, from /proc/net/tcp or tcp6; 0 if none. */
static unsigned long listener_inode(const char *path, int wanted)
{
    char line[512];
    unsigned long inode = 0;
    FILE *file = fopen(path, "re");
    while (file && !inode && fgets(line, sizeof(line), file)) {
        unsigned port;
        unsigned state;
        unsigned long found;
        /* sl  local:port  remote:port  state  queues  timer  retransmits  uid  timeout  inode */
        if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*s %*s %lu",
                   &port, &state, &found) == 3 &&
            (int)port == wanted && state == STATE_LISTEN)
            inode = found;
    }
    if (file)
        fclose(file);
    return inode;
}

static bool holds_socket(const char *pid, unsigned long inode)
{
    char path[320];
    char wanted[64];
    char target[64];
    struct dirent *entry;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%s/fd", pid);
    snprintf(wanted, sizeof(wanted), "socket:[%lu]", inode);
    DIR *folder = opendir(path);
    while (folder && !found && (entry = readdir(folder))) {
        snprintf(path, sizeof(path), "/proc/%s/fd/%.20s", pid, entry->d_name);
        ssize_t len = readlink(path, target, sizeof(target) - 1);
        target[len > 0 ? len : 0] = '\0';
        found = strcmp(target, wanted) == 0;
    }
    if (folder)
        closedir(folder);
    return found;
}

void port_owner(int port, char *ret_text, size_t size)
{
    unsigned long inode = listener_inode("/proc/net/tcp", port);
    struct dirent *entry;
    snprintf(ret_text, size, "another process");
    if (!inode)
        inode = listener_inode("/proc/net/tcp6", port);
    DIR *proc = inode ? opendir("/proc") : NULL;
    while (proc && (entry = readdir(proc))) {
        char name[64];
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9' || !holds_socket(entry->d_name, inode))
            continue;
        process_name(atoi(entry->d_name), name, sizeof(name));
        snprintf(ret_text, size, "%s (pid %s)", name, entry->d_name);
        break;
    }
    if (proc)
        closedir(proc);
}
