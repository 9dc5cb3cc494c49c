/*
 * A network of the drill's own, in which a server can be cut off.
 *
 * The network is a namespace with nothing but a loopback device; what the drill starts lives in it,
 * so its ports meet nobody else's. A cut sends the packets from or to a port into a device that
 * leads nowhere: nobody is told, connections just get no answer, as when a switch dies. Where the
 * machine gives no namespace (it takes root, and `ip` of iproute2) there are no cuts.
 *
 * SPDX-License-Identifier: MIT
 */
#ifndef SG_DRILL_NET_H
#define SG_DRILL_NET_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/error.h"

/* Moves this thread, and what it starts from now on, into a network of its own, and tries out that
 * a cut cuts. False if the machine does not allow it: nothing has changed then, and ret_why says
 * what stood in the way. */
bool net_enter(const char **ret_why);

/* No packet reaches the port, none leaves it. Cuts add up. */
enum sg_error net_cut(int port);
/* No packet of this user reaches the port; those of others do. */
enum sg_error net_cut_user(int port, uid_t uid);
/* Takes all cuts away. */
enum sg_error net_heal(void);

#endif
