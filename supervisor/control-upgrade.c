/* SPDX-License-Identifier: Apache-2.0 */

/* What the method Upgrade of baton.Control does: it begins one, and answers with what came of it. */

#include "supervisor/control-internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "supervisor/runner-status.h"
#include "supervisor/upgrade.h"

typedef struct Waiting {
        UpgradeWatcher watcher;
        Call *call;
} Waiting;

static void answer(Call *call, const Runner *runner, const UpgradeRecord *record) {
        Baton__Control__UpgradeResponse response = BATON__CONTROL__UPGRADE_RESPONSE__INIT;
        const Instance *instance = runner->instance;
        Baton__Control__UpgradeRecord message;

        response.name = (char *) runner->name;
        response.instance = instance->id;
        response.pid = instance->pid;
        if (instance->peer && peer_remote(instance->peer)->software)
                response.software = peer_remote(instance->peer)->software;
        if (record) {
                runner_status_upgrade(record, &message);
                response.former_instance = record->from;
                response.record = &message;
        }
        (void) call_answer_message(call, &response.base);
}

static void over(UpgradeWatcher *watcher, Runner *runner, const UpgradeRecord *record) {
        Waiting *waiting = CONTAINER_OF(watcher, Waiting, watcher);
        Call *call = waiting->call;

        call_on_cancel(call, NULL, NULL);
        free(waiting);
        if (record->why && runner_pid(runner) > 0)
                (void) call_fail(call, STATUS_ABORTED, "runner %s: upgrade failed while %s: %s; pid %d serves",
                                 runner->name, upgrade_phase_name(record->phase), record->why, runner_pid(runner));
        else if (record->why)
                (void) call_fail(call, STATUS_ABORTED, "runner %s: upgrade failed while %s: %s; it is not running",
                                 runner->name, upgrade_phase_name(record->phase), record->why);
        else
                answer(call, runner, record);
}

static void cancelled(Call *call, void *userdata) {
        Waiting *waiting = userdata;

        upgrade_unwatch(&waiting->watcher);
        free(waiting);
        (void) call_fail(call, STATUS_CANCELLED, "cancelled; it goes on");
}

static void refuse(Call *call, const Runner *runner, int error, const char *reason) {
        Status status = error == -ESHUTDOWN || error == -EBUSY ? STATUS_UNAVAILABLE
                        : error == -ENOMEM                     ? STATUS_RESOURCE_EXHAUSTED
                                                               : STATUS_FAILED_PRECONDITION;

        (void) call_fail(call, status, "runner %s: %s", runner->name, reason);
}

void control_upgrade(Control *control, Call *call, const ProtobufCMessage *message) {
        const Baton__Control__UpgradeRequest *request = (const Baton__Control__UpgradeRequest *) message;
        Runner *runner = control_find(control->supervisor, call, request->name);
        _cleanup_free_ char *program = NULL;
        UpgradeOptions options = { .timeout_us = MIN(request->timeout_us, TIMEOUT_MAX_US), .check = request->check };
        char reason[UPGRADE_REASON_SIZE];
        Waiting *waiting;
        int r;

        if (!runner)
                return;
        if (request->program.len > 0 && control->client.role < ROLE_ADMIN) {
                control_deny(control, call, "Upgrade to another program", ROLE_ADMIN);
                return;
        }
        program =
                request->program.len > 0 ? strndup((const char *) request->program.data, request->program.len) : NULL;
        if (request->program.len > 0 && (!program || *program != '/' || strlen(program) != request->program.len)) {
                (void) call_fail(call, STATUS_INVALID_ARGUMENT,
                                 "the program's path must be absolute, without a byte 0");
                return;
        }
        options.program = program;
        waiting = calloc(1, sizeof(*waiting));
        if (!waiting) {
                refuse(call, runner, -ENOMEM, "no memory to wait for its upgrade");
                return;
        }
        r = upgrade_begin(runner, &options, reason);
        if (r < 0) {
                free(waiting);
                refuse(call, runner, r, reason);
        } else if (request->no_wait) {
                free(waiting);
                answer(call, runner, NULL);
        } else {
                *waiting = (Waiting){ .watcher = { .callback = over }, .call = call };
                upgrade_watch(runner->upgrade, &waiting->watcher);
                call_on_cancel(call, cancelled, waiting);
        }
}
