/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Report: failures as answers. The message is one line that says which runner, at what, and why; the detail says the same
 * for programs, and brings the last lines that the runner wrote, which mostly tell more than the rest. A detail that does
 * not fit into memory is left out: the line goes out in any case.
 */

#include "supervisor/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/parse.h"

_Static_assert(EXIT_DUMPED == (int) BATON__CONTROL__EXIT__HOW__DUMPED &&
                       EXIT_LOST == (int) BATON__CONTROL__EXIT__HOW__UNKNOWN,
               "the numbers are on the wire");
_Static_assert(INSTANCE_FAILURE_SYSTEM == (int) BATON__CONTROL__START_FAILURE__REASON__SYSTEM &&
                       INSTANCE_FAILURE_NOT_FOUND == (int) BATON__CONTROL__START_FAILURE__REASON__NOT_FOUND,
               "the numbers are on the wire");

void report_exit(ExitStatus exit, Baton__Control__Exit *ret_exit) {
        baton__control__exit__init(ret_exit);
        ret_exit->how = (Baton__Control__Exit__How) exit.how;
        ret_exit->status = exit.status;
}

/* Paths need not be UTF-8, which messages must be. */
static void make_text(char *text) {
        for (char *p = text; !utf8_is_valid(text, strlen(text)) && *p; p++)
                if (*p & 0x80)
                        *p = '?';
}

/* fail_with() - @detail is packed into the answer. */
static void fail_with(Call *call, Status status, char *message, const ProtobufCMessage *detail) {
        _cleanup_free_ uint8_t *packed = malloc(protobuf_c_message_get_packed_size(detail));
        Baton__Detail wrapped = BATON__DETAIL__INIT, *details[] = { &wrapped };
        AnswerParameters answer = { .status = status, .message = message };

        make_text(message);
        if (packed) {
                wrapped.type = (char *) detail->descriptor->name;
                wrapped.value.data = packed;
                wrapped.value.len = protobuf_c_message_pack(detail, packed);
                answer.details = details;
                answer.n_details = 1;
        }
        (void) call_answer(call, &answer);
}

static size_t last_output(const Instance *instance, char ***ret_lines) {
        return runner_log_tail(instance->runner->log, instance->id, INSTANCE_LAST_LINES, INSTANCE_LAST_BYTES,
                               ret_lines);
}

void report_start_failure(Call *call, const Runner *runner) {
        Baton__Control__StartFailure detail = BATON__CONTROL__START_FAILURE__INIT;
        const Instance *instance = runner->instance;
        Baton__Control__Exit exit;
        _cleanup_free_ char **lines = NULL;
        char message[INSTANCE_NAME_SIZE + INSTANCE_FAILURE_SIZE + 32];
        const char *text = instance ? instance_text(instance->failure_text) : ": no memory";

        detail.reason = BATON__CONTROL__START_FAILURE__REASON__SYSTEM;
        if (instance && instance->failure)
                detail.reason = (Baton__Control__StartFailure__Reason) instance->failure;
        if (instance && instance->exit.how != EXIT_LOST) {
                report_exit(instance->exit, &exit);
                detail.exit = &exit;
        }
        if (instance)
                detail.n_last_output = last_output(instance, &lines);
        detail.last_output = lines;
        (void) snprintf(message, sizeof(message), "runner %s: start failed%s%s", runner->name, *text == ':' ? "" : " ",
                        text);
        fail_with(call, STATUS_UNAVAILABLE, message, &detail.base);
}

void report_ended(Call *call, Instance *instance, Status status, const char *what) {
        Baton__Control__RunnerEnded detail = BATON__CONTROL__RUNNER_ENDED__INIT;
        Baton__Control__Exit exit;
        _cleanup_free_ char **lines = NULL;
        char text[EXIT_STATUS_TEXT_SIZE],
                message[INSTANCE_NAME_SIZE + 2 * INSTANCE_FAILURE_SIZE + EXIT_STATUS_TEXT_SIZE + 32];
        bool why = !what && instance->broke_rules;

        detail.name = instance->runner->name;
        detail.instance = instance->id;
        if (instance->ended) {
                report_exit(instance->exit, &exit);
                detail.exit = &exit;
        }
        detail.n_last_output = last_output(instance, &lines);
        detail.last_output = lines;
        exit_status_describe(instance->exit, text);
        (void) snprintf(message, sizeof(message), "runner %s: %s%s%s%s%s", instance->runner->name, what ? what : "",
                        what && instance->ended ? ": " : "", instance->ended ? text : "", why ? "; " : "",
                        why ? instance_text(instance->lost) : "");
        fail_with(call, status, message, &detail.base);
}
