/* SPDX-License-Identifier: Apache-2.0 */

/*
 * By force: whoever hangs cannot be asked to go. The keeper is told by SIGUSR1, which is how the system itself sees to it
 * that only its user and root can; who it is says the control socket, as the keeper made it. It kills the supervisor and
 * starts the next one, for which we wait. One that answers is not killed: there is `baton takeover' for that.
 */

#include "client/takeover-force.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/session.h"
#include "client/status-text.h"
#include "common/clock.h"
#include "proto/message.h"

#define COMMAND "takeover"

#define ANSWER_US  (5 * USEC_PER_SEC)  /* one that says nothing for so long hangs */
#define TIMEOUT_US (30 * USEC_PER_SEC) /* for the next one to serve */
#define AGAIN_MS   50

enum { VERSION_JSON = 1 };

typedef Baton__Control__StatusResponse StatusResponse;

/* ask() - what the supervisor says of itself, or NULL. */
static StatusResponse *ask(Session *session, uint64_t timeout_us) {
        Baton__Control__StatusRequest request = BATON__CONTROL__STATUS_REQUEST__INIT;
        StatusResponse *response = NULL;
        ControlCall call;

        control_begin(&session->control, &call, "Status", &request.base, timeout_us);
        if (control_wait(&session->control, &call) == 0)
                response = control_unpack(&call, &baton__control__status_response__descriptor);
        control_call_deinit(&call);
        return response;
}

static int stays(pid_t pid) {
        output_error(
                "%s: the supervisor (pid %d) answers, so it is not killed; without --force it is replaced in order",
                COMMAND, pid);
        return EXIT_CODE_STATUS + STATUS_FAILED_PRECONDITION;
}

static void print(const ControlOptions *options, pid_t keeper, const StatusResponse *response) {
        const Baton__Control__SupervisorStatus *now = response->supervisor;
        const Baton__Control__TakeoverRecord *last = now->last_takeover;

        if (options->json) {
                json_auto_t *object = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i, s:s}", "version", VERSION_JSON,
                                                "keeper", (int) keeper, "pid", (int) now->pid, "generation",
                                                (int) now->generation, "runners", (int) now->runners, "former_pid",
                                                last ? (int) last->former_pid : 0, "reason", last ? last->reason : "");

                if (object)
                        (void) output_json(stdout, object);
        } else {
                (void) printf("pid %d (generation %u) serves, with %u runners", now->pid, now->generation,
                              now->runners);
                if (last)
                        (void) printf("; pid %d %s", last->former_pid, last->reason);
                (void) printf("\n");
        }
}

/* wait_next() - until somebody serves. */
static int wait_next(const ControlOptions *options, pid_t keeper) {
        uint64_t now = clock_now(), end = clock_after(now, options->timeout_us ? options->timeout_us : TIMEOUT_US);
        int r = 0;

        for (; now < end; now = clock_now()) {
                _cleanup_message_ StatusResponse *response = NULL;
                Session session;

                r = session_try(&session, COMMAND, options->socket, end - now, NULL);
                if (r == 0) {
                        response = ask(&session, end - now);
                        session_close(&session);
                }
                if (response && response->supervisor) {
                        print(options, keeper, response);
                        return command_output_end(COMMAND);
                }
                if (r == -ECONNREFUSED || r == -ENOENT || r == -EINTR)
                        break;
                (void) poll(NULL, 0, AGAIN_MS);
        }
        output_error("%s: the keeper (pid %d) was told, but no supervisor serves: its log says why", COMMAND, keeper);
        return r == SESSION_KEEPER_ALONE ? EXIT_CODE_KEEPER_ALONE : EXIT_CODE_STATUS + STATUS_DEADLINE_EXCEEDED;
}

/* tell() - the keeper. 0, or the exit code. */
static int tell(pid_t keeper) {
        if (keeper > 0 && kill(keeper, SIGUSR1) == 0)
                return 0;
        if (keeper > 0 && errno == EPERM) {
                output_error("%s: not allowed to signal the keeper (pid %d): its user may, and root", COMMAND, keeper);
                return EXIT_CODE_STATUS + STATUS_PERMISSION_DENIED;
        }
        output_error("%s: the keeper (pid %d) cannot be told: %s", COMMAND, keeper,
                     keeper > 0 ? strerror(errno) : "it is in another pid namespace");
        return EXIT_CODE_BROKEN;
}

int takeover_force(const ControlOptions *options) {
        _cleanup_message_ StatusResponse *response = NULL;
        Session session;
        pid_t keeper = 0;
        int r, code;

        r = session_try(&session, COMMAND, options->socket, ANSWER_US, &keeper);
        if (r < 0 || r == SESSION_REFUSED) { /* which says why */
                r = session_connect(&session, COMMAND, options->socket, &code);
                if (r == 0)
                        session_close(&session);
                return r == 0 ? stays(0) : code;
        }
        if (r == 0) {
                response = ask(&session, ANSWER_US);
                session_close(&session);
                if (response && response->supervisor)
                        return stays(response->supervisor->pid);
        }
        code = tell(keeper);
        return code != 0 ? code : wait_next(options, keeper);
}
