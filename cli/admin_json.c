/*
 * One question to the admin listener. See admin_json.h.
 *
 * SPDX-License-Identifier: MIT
 */
#include "cli/admin_json.h"

#include <stdio.h>

#include "base/dynbuf.h"
#include "base/settings.h"
#include "cli/admin_client.h"
#include "cli/cli.h"

#define ANSWER_MAX ((size_t)256 << 20)

enum sg_error admin_ask(const char *address, const char *method, const char *path,
                        int64_t timeout_ms, struct admin_answer *ret_answer, char *error_text,
                        size_t error_size)
{
    struct admin_answer answer = {0};
    struct dynbuf body;
    json_error_t problem;
    dynbuf_init(&body, ANSWER_MAX);
    enum sg_error error = admin_call(address, method, path, NULL, 0, timeout_ms, &answer.status,
                                     &body, error_text, error_size);
    if (error == SG_OK) {
        answer.json = json_loadb(dynbuf_text(&body), body.len, JSON_REJECT_DUPLICATES, &problem);
        if (!json_is_object(answer.json)) {
            snprintf(error_text, error_size, "%s: answered %d with something that is not ours",
                     address, answer.status);
            admin_answer_done(&answer);
            error = SG_MALFORMED_JSON;
        }
    }
    dynbuf_done(&body);
    if (error == SG_OK)
        *ret_answer = answer;
    return error;
}

int admin_json(const char *config, const char *method, const char *path, int64_t extra_ms,
               struct admin_answer *ret_answer)
{
    static struct settings settings;
    char error_text[512];
    if (!cli_load_settings(config, &settings))
        return 2;
    enum sg_error error =
        admin_ask(settings.admin.listen, method, path, settings.reload.ask_timeout_ms + extra_ms,
                  ret_answer, error_text, sizeof(error_text));
    if (error == SG_OK)
        return 0;
    fprintf(stderr, "seatgrid: %s%s\n", error_text,
            error == SG_MALFORMED_JSON ? "" : "; is `seatgrid serve` running?");
    return 1;
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
