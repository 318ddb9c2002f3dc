/* SPDX-License-Identifier: Apache-2.0 */

/* Ask; see the header. */

#include "client/ask.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/exit-code.h"
#include "client/output.h"
#include "proto/message.h"

int ask_open(Ask *ask, const Command *command, const ControlSyntax *syntax, int argc, char **argv) {
        char error[OPTIONS_ERROR_MAX] = "";
        int r;

        *ask = (Ask){ .command = command, .session = { .signal_fd = -1 } };
        r = control_options_parse(syntax, argc, argv, &ask->options, error);
        ask->code = command_parsed(command, r, error);
        if (ask->code != COMMAND_GO_ON)
                return -ECANCELED;
        ask->code = EXIT_CODE_OK;
        return session_connect(&ask->session, command->name, ask->options.socket, &ask->code);
}

/* failed() - sets the exit code, and says what went wrong. */
static void failed(Ask *ask, int r, ControlCall *call, const char *what, ControlFailure *ret_failure) {
        if (r == -EINTR && ask->session.signal) {
                ask->code = EXIT_CODE_SIGNAL + ask->session.signal;
        } else if (r < 0) {
                output_error("%s: %s", ask->command->name, strerror(-r));
                ask->code = EXIT_CODE_BROKEN;
        } else if (call->failure.status != STATUS_OK && ret_failure) {
                *ret_failure = call->failure;
                call->failure = (ControlFailure){ 0 };
                ask->code = exit_code_of_failure(ret_failure);
        } else {
                if (call->failure.status == STATUS_OK)
                        call->failure.status = STATUS_INTERNAL;
                ask->code = session_report(&ask->session, what, &call->failure);
        }
}

void *ask_call(Ask *ask, const char *method, const ProtobufCMessage *request,
               const ProtobufCMessageDescriptor *response, const char *what, ControlFailure *ret_failure) {
        ControlCall call;
        void *message;
        int r;

        control_begin(&ask->session.control, &call, method, request, ask->options.timeout_us);
        r = control_wait(&ask->session.control, &call);
        message = r < 0 ? NULL : control_unpack(&call, response);
        if (!message)
                failed(ask, r, &call, what, ret_failure);
        control_call_deinit(&call);
        return message;
}

int ask_close(Ask *ask) {
        int code = command_output_end(ask->command->name);

        session_close(&ask->session);
        return ask->code != EXIT_CODE_OK ? ask->code : code;
}
