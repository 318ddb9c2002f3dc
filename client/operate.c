/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Operate: what names, patterns and templates stand for is asked first; one that stands for nothing ends the command before
 * anything was done. Then all calls are
 * under way at once, but for a bound, and outcomes are told as they come, failures on standard error. What depends on what
 * is the supervisor's to know: it holds back what has to wait.
 *
 * Batches are ours alone. What would have to be remembered to go on after one that has failed, or after our own end, is what
 * each runner is at, and that the supervisor tells whoever asks: so a command that is run again chooses what is left. A
 * supervisor that drove them would have to hand its plan on to its successor, and to keep it through its death, for nothing.
 */

#include "client/operate.h"

#include <errno.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/call-output.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/status-text.h"
#include "proto/message.h"

enum { OPEN_MAX_CALLS = 256 };

/* ---- the names ---- */

static int add_target(Operate *o, const Baton__Control__RunnerStatus *runner) {
        OperateTarget *grown;

        for (size_t i = 0; i < o->n_targets; i++)
                if (strcmp(o->targets[i].name, runner->name) == 0)
                        return 0;
        grown = reallocarray(o->targets, o->n_targets + 1, sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        o->targets = grown;
        grown[o->n_targets] = (OperateTarget){ .name = strdup(runner->name) };
        if (!grown[o->n_targets++].name)
                return -ENOMEM;
        return o->choose ? o->choose(o, runner, &grown[o->n_targets - 1]) : 0;
}

/* cannot_expand() - returns the exit code. */
static int cannot_expand(Operate *o, int r, const ControlCall *call) {
        if (r == -EINTR && o->session.signal)
                return EXIT_CODE_SIGNAL + o->session.signal;
        if (r == -EPROTO) {
                output_error("%s: the supervisor is older than this command, and does not tell what has changed: "
                             "'baton takeover' replaces it",
                             o->command);
                return EXIT_CODE_STATUS + STATUS_UNIMPLEMENTED;
        }
        if (r < 0) {
                output_error("%s: %s", o->command, strerror(-r));
                return EXIT_CODE_BROKEN;
        }
        /* Of several names the supervisor's words say which. */
        return session_report(&o->session,
                              o->n_names == 0   ? "all"
                              : o->n_names == 1 ? o->options->operands[0]
                                                : NULL,
                              &call->failure);
}

/* expand() - asks what the names stand for. 0, else the exit code after its words. */
static int expand(Operate *o) {
        Baton__Control__StatusRequest request = BATON__CONTROL__STATUS_REQUEST__INIT;
        _cleanup_message_ Baton__Control__StatusResponse *response = NULL;
        ControlCall call;
        int r, code = 0;

        request.names = o->options->operands;
        request.n_names = o->n_names;
        request.outlook = o->choose != NULL;
        control_begin(&o->session.control, &call, "Status", &request.base, o->options->timeout_us);
        r = control_wait(&o->session.control, &call);
        response = control_unpack(&call, &baton__control__status_response__descriptor);
        for (size_t i = 0; response && r == 0 && i < response->n_runners; i++)
                r = add_target(o, response->runners[i]);
        if (r < 0 || !response)
                code = cannot_expand(o, r, &call);
        control_call_deinit(&call);
        return code;
}

/* ---- what came of it ---- */

static const char *outcome_of_failure(const ControlFailure *failure) {
        switch (failure->status) {
        case STATUS_NOT_FOUND:
                return "not_found";
        case STATUS_DEADLINE_EXCEEDED:
                return "timed_out";
        case STATUS_PERMISSION_DENIED:
                return "denied";
        default:
                return "failed";
        }
}

static int print_json(const OperateTarget *target, const char *word, int code, const char *message, json_t *more) {
        json_auto_t *all = json_pack("{s:i, s:s, s:s, s:i}", "version", STATUS_JSON_VERSION, "name", target->name,
                                     "outcome", word, "code", code);
        int r = all ? 0 : -ENOMEM;

        if (r == 0 && message && *message && json_object_set_new(all, "message", json_string(message)) < 0)
                r = -ENOMEM;
        if (r == 0 && more && json_object_update(all, more) < 0)
                r = -ENOMEM;
        if (r == 0)
                r = output_json(stdout, all);
        return r;
}

static int tell_failure(Operate *o, OperateTarget *target, int *code) {
        ControlFailure *failure = &target->call.failure;
        json_auto_t *more = o->options->json ? call_output_details(failure) : NULL;

        if (failure->status == STATUS_DEADLINE_EXCEEDED && o->options->timeout_us) {
                free(failure->message);
                failure->message = strdup("not within --timeout; it goes on");
        }
        *code = session_report(&o->session, target->name, failure);
        return o->options->json ? print_json(target, outcome_of_failure(failure), *code, failure->message, more) : 0;
}

static int print_line(const OperateTarget *target, const char *text) {
        int r = printf("%s: ", target->name) < 0 ? -errno : 0;

        if (r == 0)
                r = output_text(stdout, text, strlen(text));
        return r == 0 && putchar('\n') == EOF ? -errno : r;
}

static int tell_success(Operate *o, OperateTarget *target, const void *response, int *code) {
        OperateOutcome outcome = { .word = "done" };
        int r;

        o->read(o, response, &outcome);
        *code = outcome.already && o->options->strict ? EXIT_CODE_ALREADY : EXIT_CODE_OK;
        if (o->options->json)
                r = print_json(target, outcome.already ? "already" : outcome.word, *code, outcome.text, outcome.more);
        else
                r = print_line(target, outcome.text);
        json_decref(outcome.more);
        return r;
}

/* tell() - of a call that is done. 0 or a negative errno of the output. */
static int tell(Operate *o, OperateTarget *target, int *code) {
        _cleanup_message_ void *response = control_unpack(&target->call, o->response);
        int r;

        target->finished = true;
        o->n_finished += target->begun;
        if (!response && target->call.failure.status == STATUS_OK)
                target->call.failure.status = STATUS_INTERNAL;
        r = response ? tell_success(o, target, response, code) : tell_failure(o, target, code);
        o->n_failed += target->begun && !response;
        control_call_deinit(&target->call);
        return r < 0 ? r : output_flush(stdout);
}

/* tell_cannot() - as if it had been tried. */
static int tell_cannot(Operate *o, OperateTarget *target, int *code) {
        o->n_cannot++;
        target->call.failure.status = STATUS_FAILED_PRECONDITION;
        if (asprintf(&target->call.failure.message, "runner %s: %s", target->name, target->why) < 0)
                target->call.failure.message = NULL;
        return tell(o, target, code);
}

/* tell_left() - of one that nothing was done to. */
static int tell_left(Operate *o, const OperateTarget *target) {
        bool current = target->choice == OPERATE_CURRENT;

        o->n_current += current;
        o->n_untouched += !current;
        if (o->options->json)
                return print_json(target, current ? "current" : "untouched", EXIT_CODE_OK, "", NULL);
        return current || printf("%s: untouched\n", target->name) >= 0 ? 0 : -errno;
}

/* ---- from start to end ---- */

/* begin_more() - of a batch all, when the one before is over. */
static void begin_more(Operate *o) {
        size_t open = o->n_begun - o->n_finished;
        size_t room = o->batch == 0                   ? OPEN_MAX_CALLS - open
                      : open == 0 && o->n_failed == 0 ? MIN(o->batch, (size_t) OPEN_MAX_CALLS)
                                                      : 0;

        for (; o->next < o->n_targets && room > 0; o->next++) {
                OperateTarget *target = &o->targets[o->next];

                if (target->choice != OPERATE_CHOSEN)
                        continue;
                target->begun = true;
                o->n_begun++;
                room--;
                o->begin(o, &o->session.control, target);
        }
}

/* note_code() - @first is the code of the first runner, by its place, that failed. */
static void note_code(size_t place, int code, size_t *first_place, int *first) {
        if (code == 0 || place >= *first_place)
                return;
        *first_place = place;
        *first = code;
}

/* take_done() - tells of the calls that are. */
static int take_done(Operate *o, size_t *first_place, int *first) {
        int r = 0, code = 0;

        for (size_t i = 0; i < o->next && r == 0; i++) {
                OperateTarget *target = &o->targets[i];

                if (!target->begun || target->finished || !target->call.done)
                        continue;
                r = tell(o, target, &code);
                note_code(i, code, first_place, first);
        }
        return r;
}

/* take_rest() - tells of those that were not begun. */
static int take_rest(Operate *o, size_t *first_place, int *first) {
        int r = 0, code = 0;

        for (size_t i = 0; i < o->n_targets && r == 0; i++) {
                OperateTarget *target = &o->targets[i];

                if (target->begun)
                        continue;
                if (target->choice == OPERATE_CANNOT) {
                        r = tell_cannot(o, target, &code);
                        note_code(i, code, first_place, first);
                } else {
                        r = tell_left(o, target);
                }
        }
        return r == 0 ? output_flush(stdout) : r;
}

static int work(Operate *o) {
        size_t first_place = SIZE_MAX;
        int r, first = expand(o);

        if (first != 0)
                return first;
        begin_more(o);
        do {
                r = take_done(o, &first_place, &first);
                begin_more(o);
                if (r == 0 && o->n_finished < o->n_begun)
                        r = o->session.control.interrupted ? -EINTR : endpoint_dispatch(o->session.endpoint, -1);
        } while (r == 0 && o->n_finished < o->n_begun);
        if (r == 0)
                r = take_rest(o, &first_place, &first);
        if (r == -EINTR && o->session.signal)
                return EXIT_CODE_SIGNAL + o->session.signal;
        if (r < 0 && r != -EPIPE)
                output_error("%s: %s", o->command, strerror(-r));
        return r == -EPIPE ? EXIT_CODE_SIGNAL + SIGPIPE : r < 0 ? EXIT_CODE_BROKEN : first;
}

int operate_run(Operate *o) {
        int code;

        if (session_connect(&o->session, o->command, o->options->socket, &code) < 0)
                return code;
        code = work(o);
        for (size_t i = 0; i < o->n_targets; i++) {
                if (o->targets[i].begun)
                        control_call_deinit(&o->targets[i].call);
                free(o->targets[i].name);
                free(o->targets[i].why);
        }
        free(o->targets);
        session_close(&o->session);
        return code;
}
