/*
 * What every server process stands on. See host.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "api/host.h"

#include <signal.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/metrics.h"
#include "base/reap.h"
#include "base/settings.h"
#include "shardmap/shardmap.h"

static struct event_base *new_base(bool precise_timers)
{
    struct event_config *config = event_config_new();
    if (!config)
        return NULL;
    if (precise_timers)
        event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static bool watch_signal(struct host *host, int slot, int number, event_callback_fn fn, void *arg)
{
    host->signals[slot] = evsignal_new(host->base, number, fn, arg);
    return host->signals[slot] && event_add(host->signals[slot], NULL) == 0;
}

bool host_begin(struct host *host, const struct settings *settings, struct shardmap *map,
                bool precise_timers, event_callback_fn on_stop, event_callback_fn on_reload,
                void *arg)
{
    *host = (struct host){.settings = settings,
                          .base = new_base(precise_timers),
                          .domain = snapshot_domain_new(),
                          .metrics = metrics_set_new()};
    if (host->base)
        host->reap = reap_list_new(host->base);
    if (host->domain)
        host->reader = snapshot_reader_new(host->domain);
    if (host->reader && map)
        snapshot_publish(host->reader, &host->maps, map, shardmap_free);
    else
        shardmap_free(map);
    return host->reap && host->reader && host->metrics &&
           watch_signal(host, 0, SIGTERM, on_stop, arg) &&
           watch_signal(host, 1, SIGINT, on_stop, arg) &&
           (!on_reload || watch_signal(host, 2, SIGHUP, on_reload, arg));
}

enum sg_error host_listen(struct host *host, const char *address, const char *listener,
                          size_t max_connections,
                          void (*on_request)(void *arg, struct http_request *request), void *arg,
                          char *error_text, size_t error_size)
{
    const struct settings *settings = host->settings;
    int fd;
    enum sg_error error =
        http_listen(address, false, (int)settings->http.backlog, &fd, error_text, error_size);
    if (error != SG_OK)
        return error;
    struct http_server_config config = {.base = host->base,
                                        .metrics = host->metrics,
                                        .reap = host->reap,
                                        .limits = http_limits(settings, max_connections),
                                        .listener = listener,
                                        .on_request = on_request,
                                        .arg = arg};
    host->http = http_server_new(&config, fd);
    return host->http ? SG_OK : SG_NO_MEMORY;
}

void host_run(struct host *host)
{
    event_base_loop(host->base, EVLOOP_NO_EXIT_ON_EMPTY);
    log_info(NULL, "stopped");
}

const struct shardmap *host_map(struct host *host)
{
    return snapshot_get(&host->maps);
}

void host_stop_listening(struct host *host)
{
    if (host->http)
        http_server_free(host->http);
    host->http = NULL;
}

void host_end(struct host *host)
{
    host_stop_listening(host);
    for (int i = 0; i < HOST_SIGNALS; i++) {
        if (host->signals[i])
            event_free(host->signals[i]);
    }
    if (host->reap)
        reap_list_free(host->reap);
    snapshot_slot_done(&host->maps, shardmap_free);
    snapshot_slot_done(&host->topologies, free);
    if (host->reader) {
        snapshot_poll(host->reader);
        snapshot_reader_free(host->reader);
    }
    if (host->domain)
        snapshot_domain_free(host->domain);
    if (host->base)
        event_base_free(host->base);
    metrics_shutdown();
    libevent_global_shutdown();
}
