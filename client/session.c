/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Session: what `call' and `run' have in common. Signals are blocked and read from a descriptor in the endpoint's set,
 * so that they arrive between callbacks, in order, and never inside of anything. A signal that was ignored when we were
 * started (nohup, a shell's background job) stays ignored: blocking it would bring it back to life.
 *
 * However a session ends, session_close() runs: the tree is stopped by closing its lane, never by killing it, unless
 * the person at the keyboard asks a second time.
 */

#include "client/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/connect.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/program.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/text.h"
#include "common/version.h"
#include "proto/message.h"

#define CLOSE_TIMEOUT_US (15 * USEC_PER_SEC)
#define HELLO_TIMEOUT_US (30 * USEC_PER_SEC) /* a supervisor that recovers thousands takes its time */
#define SELF             "/proc/self/exe"

static const int watched_signals[] = { SIGINT, SIGTERM, SIGHUP };

static void on_signal_fd(int fd, void *userdata) {
        struct signalfd_siginfo info;
        Session *session = userdata;

        while (read(fd, &info, sizeof(info)) == (ssize_t) sizeof(info)) {
                if (session->n_signals++ == 0)
                        session->signal = (int) info.ssi_signo;
                if (session->on_signal)
                        session->on_signal(session);
                else {
                        session->hurry = session->n_signals > 1;
                        control_interrupt(&session->control);
                }
        }
}

static int open_signals(Session *session) {
        struct sigaction action;
        sigset_t set;

        (void) sigemptyset(&set);
        for (size_t i = 0; i < ARRAY_SIZE(watched_signals); i++)
                if (sigaction(watched_signals[i], NULL, &action) == 0 && action.sa_handler != SIG_IGN)
                        (void) sigaddset(&set, watched_signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        (void) signal(SIGPIPE, SIG_IGN);
        session->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        return session->signal_fd < 0 ? -errno
                                      : endpoint_watch(session->endpoint, session->signal_fd, on_signal_fd, session);
}

uint64_t session_max_object(uint64_t max_frame) {
        return max_frame ? max_frame : SESSION_MAX_OBJECT;
}

static int open_all(Session *session) {
        const PeerLimits limits = { .max_frame = session->max_frame,
                                    .max_object = session_max_object(session->max_frame) };
        char software[64];
        PrivateConfig config = {
                .program = SELF,
                .limits = &limits,
                .software = software,
                .handler = &control_handler,
                .userdata = &session->control,
        };
        int r;

        (void) snprintf(software, sizeof(software), "baton %s", version_release());
        r = endpoint_new(&session->endpoint);
        if (r < 0)
                return r;
        control_init(&session->control, session->endpoint);
        r = open_signals(session);
        if (r == 0)
                r = private_start(&session->private, session->endpoint, &config);
        if (r == 0)
                control_attach(&session->control, private_peer(session->private));
        return r;
}

int session_open(Session *session, const char *command, uint64_t max_frame) {
        int r;

        *session = (Session){ .command = command, .signal_fd = -1, .max_frame = max_frame };
        r = open_all(session);
        if (r < 0) {
                output_error("%s: cannot start a supervisor: %s", command, strerror(-r));
                session_close(session);
        }
        return r;
}

/* ---- a supervisor that runs ---- */

/* cannot_connect() - says why; returns the exit code. */
static int cannot_connect(const char *command, const char *path, int error) {
        switch (error) {
        case -ENOENT:
        case -ENOTDIR:
                output_error(
                        "%s: no supervisor runs here: there is no socket %s; start one with 'baton supervise', or "
                        "name another with --socket or $" PLACES_SOCKET_VARIABLE,
                        command, path);
                return EXIT_CODE_NO_SOCKET;
        case -ECONNREFUSED:
                output_error("%s: no supervisor runs here any more: nobody is behind %s; start one with 'baton "
                             "supervise'",
                             command, path);
                return EXIT_CODE_NOBODY;
        case -EACCES:
        case -EPERM:
                output_error("%s: not allowed to connect to %s: %s", command, path, strerror(-error));
                return EXIT_CODE_STATUS + STATUS_PERMISSION_DENIED;
        case -ENOTSOCK:
                output_error("%s: %s is not a socket", command, path);
                return EXIT_CODE_NO_SOCKET;
        default:
                output_error("%s: cannot connect to %s: %s", command, path, strerror(-error));
                return EXIT_CODE_BROKEN;
        }
}

static int silent(const char *command, const char *path, pid_t keeper) {
        output_error("%s: the supervisor behind %s (keeper pid %d) does not answer; 'baton takeover --force' has it "
                     "replaced",
                     command, path, keeper);
        return EXIT_CODE_STATUS + STATUS_DEADLINE_EXCEEDED;
}

/* not_served() - the connection has ended before Hello. */
static int not_served(const Session *session, const char *path, pid_t keeper) {
        const Control *control = &session->control;
        const char *reason = control->end_reason ? control->end_reason : "it says nothing";

        if (control->end_status == STATUS_UNAVAILABLE) {
                output_error("%s: the keeper (pid %d) runs, but no supervisor: it has crashed and is being started "
                             "again, or was given up; the keeper's log says which",
                             session->command, keeper);
                return EXIT_CODE_KEEPER_ALONE;
        }
        output_error("%s: the supervisor behind %s (keeper pid %d) does not serve us: %s: %s", session->command, path,
                     keeper, status_name(control->end_status), reason);
        return EXIT_CODE_STATUS + (int) control->end_status;
}

static int add_supervisor(Session *session, int lane_fd_consume) {
        char software[64];
        const PeerConfig config = { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .software = software };
        int r;

        (void) snprintf(software, sizeof(software), "baton %s", version_release());
        r = endpoint_add_peer(session->endpoint, &config, lane_fd_consume, &control_handler, &session->control,
                              &session->peer);
        if (r == 0)
                control_attach(&session->control, session->peer);
        return r;
}

/* wait_hello() - until it has come, or the connection has ended. 0, -EINTR, -ETIMEDOUT, or an errno of the endpoint. */
static int wait_hello(Session *session, uint64_t timeout_us) {
        uint64_t end = clock_after(clock_now(), timeout_us);
        int r = 0;

        while (r == 0 && !session->control.ready && !session->control.ended) {
                uint64_t now = clock_now();

                if (session->control.interrupted)
                        r = -EINTR;
                else if (now >= end)
                        r = -ETIMEDOUT;
                else
                        r = endpoint_dispatch(session->endpoint, (int) ((end - now) / USEC_PER_MSEC) + 1);
        }
        return r;
}

static int connect_to(Session *session, const char *path, uint64_t timeout_us, pid_t *ret_keeper) {
        int fd = -1, r = connect_supervisor(path, &fd, ret_keeper);

        if (r < 0)
                return r;
        r = endpoint_new(&session->endpoint);
        if (r < 0) {
                fd_close(fd);
                return r;
        }
        control_init(&session->control, session->endpoint);
        r = add_supervisor(session, fd);
        if (r == 0)
                r = open_signals(session);
        return r < 0 ? r : wait_hello(session, timeout_us);
}

/* attempt() - 0: it serves us. SESSION_..., or a negative errno: it does not; the session is still to be closed. */
static int attempt(Session *session, const char *path, uint64_t timeout_us, pid_t *ret_keeper) {
        int r = connect_to(session, path, timeout_us, ret_keeper);

        if (r == -ETIMEDOUT)
                return SESSION_SILENT;
        if (r < 0 || (session->control.ready && !session->control.ended))
                return r;
        return session->control.end_status == STATUS_UNAVAILABLE ? SESSION_KEEPER_ALONE : SESSION_REFUSED;
}

int session_try(Session *session, const char *command, const char *socket, uint64_t timeout_us, pid_t *ret_keeper) {
        char path[PLACES_PATH_MAX];
        int r;

        *session = (Session){ .command = command, .signal_fd = -1 };
        r = connect_path(socket, path);
        if (r == 0)
                r = attempt(session, path, timeout_us, ret_keeper);
        if (r != 0)
                session_close(session);
        return r;
}

int session_connect(Session *session, const char *command, const char *socket, int *ret_code) {
        char path[PLACES_PATH_MAX];
        pid_t keeper = 0;
        int r;

        *session = (Session){ .command = command, .signal_fd = -1 };
        r = connect_path(socket, path);
        if (r < 0)
                (void) snprintf(path, sizeof(path), "%.4000s", socket ? socket : "the control socket");
        else
                r = attempt(session, path, HELLO_TIMEOUT_US, &keeper);
        if (r == 0)
                return 0;
        if (r == -EINTR && session->signal)
                *ret_code = EXIT_CODE_SIGNAL + session->signal;
        else if (r == SESSION_SILENT)
                *ret_code = silent(command, path, keeper);
        else
                *ret_code = r < 0 ? cannot_connect(command, path, r) : not_served(session, path, keeper);
        session_close(session);
        return -ECANCELED;
}

/* ---- the end ---- */

/* wait_tree() - until the tree has ended, the time is over, or somebody is in a hurry. */
static void wait_tree(Session *session) {
        uint64_t end = clock_after(clock_now(), CLOSE_TIMEOUT_US);
        uint64_t now;

        if (session->hurry)
                private_kill(session->private);
        while ((now = clock_now()) < end) {
                struct pollfd fds[] = { { .fd = private_fd(session->private), .events = POLLIN },
                                        { .fd = session->signal_fd, .events = POLLIN } };
                struct signalfd_siginfo info;

                if (poll(fds, ARRAY_SIZE(fds), (int) ((end - now) / USEC_PER_MSEC + 1)) < 0 && errno != EINTR)
                        return;
                if (fds[0].revents)
                        return;
                if (fds[1].revents && read(session->signal_fd, &info, sizeof(info)) > 0 && session->n_signals++ > 0)
                        private_kill(session->private);
        }
}

void session_close(Session *session) {
        if (session->private) {
                private_close(session->private);
                wait_tree(session);
                session->private = private_free(session->private);
        }
        if (session->peer) {
                peer_close(session->peer, STATUS_OK, "done");
                session->peer = peer_free(session->peer);
        }
        control_deinit(&session->control);
        if (session->signal_fd >= 0) {
                (void) endpoint_watch(session->endpoint, session->signal_fd, NULL, NULL);
                session->signal_fd = fd_close(session->signal_fd);
        }
        session->endpoint = endpoint_free(session->endpoint);
}

/* ---- the start of a runner ---- */

/* not_found() - what the supervisor would say: the look-up is the caller's, so it says it. */
static int not_found(const char *program, int error, ControlFailure *ret_failure) {
        const char *text = error == -EACCES ? "found, but not executable" : "no such program in $PATH or beside baton";
        Baton__Control__StartFailure start = BATON__CONTROL__START_FAILURE__INIT;
        uint8_t packed[16]; /* one small number */
        size_t size;

        start.reason = error == -EACCES ? BATON__CONTROL__START_FAILURE__REASON__NOT_EXECUTABLE
                                        : BATON__CONTROL__START_FAILURE__REASON__NOT_FOUND;
        size = baton__control__start_failure__pack(&start, packed);
        *ret_failure = (ControlFailure){
                .status = STATUS_UNAVAILABLE,
                .start = message_unpack(&baton__control__start_failure__descriptor, packed, size),
        };
        if (asprintf(&ret_failure->message, "%s: %s", program, text) < 0)
                ret_failure->message = NULL;
        return CONTROL_REFUSED;
}

int session_find(const char *program, char **ret_path, ControlFailure *ret_failure) {
        _cleanup_free_ char *beside = NULL, *directory = getcwd(NULL, 0);
        int r;

        (void) program_directory(&beside);
        r = program_find(program, getenv("PATH"), beside, directory ? directory : "/", ret_path);
        return r == -ENOENT || r == -EACCES ? not_found(program, r, ret_failure) : r;
}

int session_start(Session *session, const RunnerOptions *options, const char *path, bool native,
                  ControlStarted **ret_started, ControlFailure *ret_failure) {
        _cleanup_free_ char *directory = getcwd(NULL, 0);
        _cleanup_free_ char **environment = NULL;
        _cleanup_free_ ProtobufCBinaryData *variables = NULL, *arguments = NULL;
        ControlStart request = BATON__CONTROL__START_REQUEST__INIT;
        Baton__Control__Limits limits = BATON__CONTROL__LIMITS__INIT;
        int r;

        r = environment_merge(environ, options->environment, options->n_environment, &environment,
                              &request.n_environment);
        if (r < 0)
                return r;
        variables = control_bytes_array(environment, request.n_environment);
        arguments = control_bytes_array(options->arguments, options->n_arguments);
        if (!variables || !arguments)
                return -ENOMEM;
        request.kind =
                native ? BATON__CONTROL__START_REQUEST__KIND__NATIVE : BATON__CONTROL__START_REQUEST__KIND__PLAIN;
        request.park_output = session->park_output;
        limits.max_frame = session->max_frame;
        limits.max_object = session_max_object(session->max_frame);
        request.limits = &limits;
        request.program = control_bytes(path);
        request.environment = variables;
        request.arguments = arguments;
        request.n_arguments = options->n_arguments;
        request.start_timeout_us = options->start_timeout_us;
        if (options->name)
                request.name = (char *) options->name;
        request.directory = control_bytes(directory);
        if (session->terminal_fd)
                return control_start_on(&session->control, &request, fd_take(session->terminal_fd), ret_started,
                                        ret_failure);
        return control_start(&session->control, &request, ret_started, ret_failure);
}

/* ---- failures in words ---- */

static void print_lines(char *const *lines, size_t n) {
        for (size_t i = 0; i < n; i++) {
                (void) fputs("    ", stderr);
                (void) output_text(stderr, lines[i], strlen(lines[i]));
                (void) fputc('\n', stderr);
        }
        (void) fflush(stderr);
}

static const char *failure_text(const ControlFailure *failure) {
        if (failure->message && *failure->message)
                return failure->message;
        return failure->start ? start_reason_describe((int) failure->start->reason) : "no reason given";
}

/* hint() - what a program that never was up may be missing. */
static const char *hint(const Session *session, const ControlFailure *failure) {
        int code = exit_code_of_failure(failure);
        bool early = code == EXIT_CODE_EXITED_EARLY || code == EXIT_CODE_DID_NOT_CONNECT;

        return early && session->early_hint ? session->early_hint : "";
}

/* report_status() - the subject once: a supervisor's message has it, too. */
static void report_status(const char *command, const char *what, const ControlFailure *failure) {
        char said[512];

        (void) snprintf(said, sizeof(said), "%s%s%s", command, what ? " " : "", what ? what : "");
        output_error("%s%s%s: %s: %s", command, what ? " " : "", what ? what : "", status_name(failure->status),
                     text_past_subject(failure_text(failure), said));
}

int session_report(const Session *session, const char *what, const ControlFailure *failure) {
        /* One that never came up has said why itself. */
        if (session->control.ended && !session->control.ready && session->private &&
            private_has_failed(session->private))
                return EXIT_CODE_BROKEN;
        if (session->control.ended) {
                output_error("%s: the supervisor is gone: %s; see its last words above, if any, and %s again",
                             session->command, failure_text(failure), session->command);
                return EXIT_CODE_BROKEN;
        }
        if (failure->start)
                output_error("%s: %s%s%s", session->command,
                             text_begins(failure_text(failure), "runner ") ? "" : "cannot start: ",
                             failure_text(failure), hint(session, failure));
        else
                report_status(session->command, what, failure);
        if (failure->start)
                print_lines(failure->start->last_output, failure->start->n_last_output);
        if (failure->ended)
                print_lines(failure->ended->last_output, failure->ended->n_last_output);
        return exit_code_of_failure(failure);
}
