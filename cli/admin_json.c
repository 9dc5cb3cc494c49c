/*
 * One question to the admin listener. See admin_json.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "cli/admin_json.h"

#include <stdio.h>
#include <string.h>

#include "base/dynbuf.h"
#include "base/settings.h"
#include "cli/admin_client.h"
#include "cli/cli.h"

#define ANSWER_MAX ((size_t)256 << 20)

static int parse(const char *address, const struct dynbuf *body, struct admin_answer *answer)
{
    json_error_t error;
    answer->json = json_loadb(dynbuf_text(body), body->len, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(answer->json))
        return 0;
    fprintf(stderr, "seatgrid: %s answered %d with something that is not ours\n", address,
            answer->status);
    admin_answer_done(answer);
    return 1;
}

int admin_json(const char *config, const char *method, const char *path, int64_t extra_ms,
               struct admin_answer *ret_answer)
{
    static struct settings settings;
    struct admin_answer answer = {0};
    struct dynbuf body;
    char error_text[256];
    int code = 0;
    if (!cli_load_settings(config, &settings))
        return 2;
    dynbuf_init(&body, ANSWER_MAX);
    enum sg_error error = admin_call(settings.admin.listen, method, path, NULL, 0,
                                     settings.reload.ask_timeout_ms + extra_ms, &answer.status,
                                     &body, error_text, sizeof(error_text));
    if (error == SG_OK) {
        code = parse(settings.admin.listen, &body, &answer);
    } else {
        fprintf(stderr, "seatgrid: %s: %s; is `seatgrid serve` running?\n", settings.admin.listen,
                error_text);
        code = 1;
    }
    dynbuf_done(&body);
    if (code == 0)
        *ret_answer = answer;
    return code;
}

void admin_answer_done(struct admin_answer *answer)
{
    json_decref(answer->json);
    answer->json = NULL;
}

bool admin_answer_print(const struct admin_answer *answer)
{
    return json_dumpf(answer->json, stdout, JSON_COMPACT) == 0 && putchar('\n') != EOF &&
           fflush(stdout) == 0;
}

const char *admin_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}
