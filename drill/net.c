/*
 * A network namespace and its cuts. See net.h.
 *
 *   rule 10   tcp, port N  ──> table 77: 127.0.0.0/8 by void0 ──> void1, which drops it
 *   rule 100  local        ──> the loopback device
 *
 * The kernel's own rule for local addresses stands before all others; here it stands behind the
 * cuts. void0 and void1 are the two ends of one cable; what comes out of it with a loopback
 * address is dropped without a word. Where there is no such cable the table drops by itself, and a
 * new connection is refused at once instead of waiting.
 *
 * SPDX-License-Identifier: MIT
 */
#include "drill/net.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dev/process.h"

#define IP_TIMEOUT_MS 10000
#define TRY_MS 200
#define RULES_MAX 64

static int rule_count; /* cuts in force */

/* --- ip --------------------------------------------------------------------------------------- */

static const char *find_ip(void)
{
    static const char *const places[] = {"/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip"};
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (access(places[i], X_OK) == 0)
            return places[i];
    }
    return NULL;
}

/* Commands as `ip -batch` takes them, one a line. */
static enum sg_error run_ip(const char *commands)
{
    const char *const argv[] = {find_ip(), "-batch", "-", NULL};
    struct process_spec spec = {.argv = argv, .log_path = "/dev/null", .stdin_text = commands};
    return argv[0] ? process_run(&spec, IP_TIMEOUT_MS) : SG_NOT_FOUND;
}

/* --- cuts ------------------------------------------------------------------------------------- */

static enum sg_error add_rule(const char *match, int port, const char *user)
{
    char command[160];
    if (rule_count == RULES_MAX)
        return SG_OVERLOADED;
    snprintf(command, sizeof(command), "rule add pref 10 ipproto tcp %s %d %s lookup 77\n", match,
             port, user);
    enum sg_error error = run_ip(command);
    rule_count += error == SG_OK;
    return error;
}

enum sg_error net_cut(int port)
{
    enum sg_error error = add_rule("dport", port, "");
    return error ? error : add_rule("sport", port, "");
}

enum sg_error net_cut_user(int port, uid_t uid)
{
    char user[64];
    snprintf(user, sizeof(user), "uidrange %u-%u", uid, uid);
    return add_rule("dport", port, user);
}

enum sg_error net_heal(void)
{
    char commands[RULES_MAX * 20] = "";
    size_t len = 0;
    if (rule_count == 0)
        return SG_OK;
    for (int i = 0; i < rule_count; i++)
        len += (size_t)snprintf(commands + len, sizeof(commands) - len, "rule del pref 10\n");
    enum sg_error error = run_ip(commands);
    if (!error)
        rule_count = 0;
    return error;
}

/* --- entering --------------------------------------------------------------------------------- */

static bool write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        close(fd);
    return written;
}

static bool make_void(void)
{
    return run_ip("link add void0 type veth peer name void1\n"
                  "link set void0 arp off up\n"
                  "link set void1 arp off up\n"
                  "route add 127.0.0.0/8 dev void0 table 77\n") == SG_OK &&
           write_text("/proc/sys/net/ipv4/conf/void0/route_localnet", "1");
}

/* Does a connection to the address come about within a moment? */
static bool connects(const struct sockaddr_in *address)
{
    int problem = 0;
    socklen_t len = sizeof(problem);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    if (fd < 0)
        return false;
    (void)connect(fd, (const struct sockaddr *)address, sizeof(*address));
    bool made = poll(&wait, 1, TRY_MS) == 1 && !(wait.revents & (POLLERR | POLLHUP)) &&
                getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &len) == 0 && problem == 0;
    close(fd);
    return made;
}

/* Cuts a port, and heals it. */
static bool cuts_work(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool work = fd >= 0 && bind(fd, (struct sockaddr *)&address, len) == 0 && listen(fd, 8) == 0 &&
                getsockname(fd, (struct sockaddr *)&address, &len) == 0 && connects(&address) &&
                net_cut(ntohs(address.sin_port)) == SG_OK && !connects(&address);
    work = net_heal() == SG_OK && work && connects(&address);
    if (work) {
        work = net_cut_user(ntohs(address.sin_port), geteuid()) == SG_OK && !connects(&address);
        work = net_heal() == SG_OK && work;
    }
    if (fd >= 0)
        close(fd);
    return work;
}

static bool furnish(void)
{
    if (run_ip("link set lo up\nrule add pref 100 lookup local\nrule del pref 0\n") != SG_OK)
        return false;
    if (!make_void()) {
        run_ip("route flush table 77\n");
        if (run_ip("route add blackhole default table 77\n") != SG_OK)
            return false;
    }
    return cuts_work();
}

bool net_enter(const char **ret_why)
{
    *ret_why = NULL;
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (geteuid() != 0)
        *ret_why = "not root";
    else if (!find_ip())
        *ret_why = "no `ip` of iproute2";
    else if (home < 0 || unshare(CLONE_NEWNET) != 0)
        *ret_why = "the machine gives no network namespace";
    else if (!furnish())
        *ret_why = setns(home, CLONE_NEWNET) == 0 ? "a rule in it cuts nothing" : "setns";
    if (home >= 0)
        close(home);
    return !*ret_why;
}
