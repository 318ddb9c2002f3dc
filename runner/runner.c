/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The runner object: its peers, the supervisor and the clients that were attached, on an endpoint of its own. Incoming
 * calls go by name, to the library's methods ("baton.…") or the application's.
 *
 * How it ends. The supervisor says so (the service is STOPPED, or CLOSE), or is gone for good (the lane's end), or the
 * application quits. In the first and last case what was answered is still written and the log acknowledged before the
 * connection is closed. Once ended, the object stays until it is freed: nothing is called back any more, new calls of
 * ours are refused, and dispatch repeats its result.
 */

#include "runner/runner.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/parse.h"
#include "runner/bootstrap.h"

#define RESULT_ENDED 1 /* of dispatch: in order */

/* ---- the peer's side ---- */

static const struct {
        Status status;
        int result;
} results[] = {
        { STATUS_OK, RESULT_ENDED },
        { STATUS_UNAVAILABLE, RESULT_ENDED }, /* the lane's end */
        { STATUS_DEADLINE_EXCEEDED, -ETIMEDOUT },
        { STATUS_RESOURCE_EXHAUSTED, -ENOBUFS },
        { STATUS_FAILED_PRECONDITION, -EPROTONOSUPPORT },
};

static void on_ended(Connection *connection, Status status, const char *reason) {
        Runner *runner = connection_owner(connection);

        runner->ended = true;
        runner->result = -EPROTO;
        for (size_t i = 0; i < ARRAY_SIZE(results); i++)
                if (results[i].status == status)
                        runner->result = results[i].result;
        (void) snprintf(runner->reason, sizeof(runner->reason), "%s", reason);
        checkpoint_end(runner);
}

static void on_ready(Connection *connection, bool renewed) {
        Runner *runner = connection_owner(connection);

        log_queue_ready(&runner->log);
        if (renewed && runner->on_renewal)
                runner->on_renewal(runner, runner->on_renewal_userdata);
}

static void on_channel(Connection *connection, unsigned channel) {
        Runner *runner = connection_owner(connection);

        if (runner->on_channel)
                runner->on_channel(runner, (enum baton_channel) channel, runner->on_channel_userdata);
}

static void on_call(Connection *connection, Call *call) {
        runner_serve(connection_owner(connection), connection, call);
}

static const ConnectionHandler supervisor_handler = {
        .ready = on_ready,
        .channel = on_channel,
        .call = on_call,
        .ended = on_ended,
};

/* ---- life ---- */

static bool copy_options(const struct baton_runner_options *given, struct baton_runner_options *ret) {
        PeerLimits limits;

        *ret = (struct baton_runner_options){ 0 };
        if (!given)
                return true;
        memcpy(ret, given, MIN(given->size, sizeof(*ret)));
        limits = HANDLE_LIMITS(ret);
        return given->size >= sizeof(given->size) && peer_limits_are_valid(&limits);
}

/* take_options() - what is needed later than now. */
static int take_options(Runner *runner, const struct baton_runner_options *options) {
        runner->limits = HANDLE_LIMITS(options);
        runner->max_clients = options->max_clients ? options->max_clients : RUNNER_CLIENTS;
        runner->software = strdup(options->software ? options->software : program_invocation_short_name);
        return runner->software ? 0 : -ENOMEM;
}

static int connect_supervisor(Runner *runner, int lane_fd_consume) {
        PeerConfig config = {
                .side = 1,
                .n_channels = LANE_CHANNELS,
                .renewal = LANE_RENEWAL_PEER,
                .objects = PEER_OBJECTS_MAP,
                .limits = &runner->limits,
                .software = runner->software,
                .service_state = runner->life.state,
        };

        return connection_new(&runner->supervisor, runner->handles, &config, lane_fd_consume, &supervisor_handler,
                              runner);
}

static void on_drained(void *userdata) {
        lifecycle_drained(userdata);
}

/* on_woken() - other threads may have written log records. */
static void on_woken(void *userdata) {
        Runner *runner = userdata;

        log_queue_collect(&runner->log);
}

static inline void runner_freep(Runner **runner) {
        baton_runner_free(*runner);
}

/* set_up() - all that a runner has, from the bottom up. 0 or a negative errno. */
static int set_up(Runner *runner, const struct baton_runner_options *options, int lane_fd_consume) {
        _cleanup_fd_ int lane_fd = lane_fd_consume;
        int r;

        lifecycle_init(runner);
        STAILQ_INIT(&runner->checkpoint_asked);
        STAILQ_INIT(&runner->checkpoint_waiting);
        r = take_options(runner, options);
        if (r < 0)
                return r;
        r = endpoint_new(&runner->endpoint);
        if (r < 0)
                return r;
        endpoint_set_busy_poll(runner->endpoint, options->busy_poll_us);
        r = handles_new(&runner->handles, runner->endpoint, on_drained, runner);
        if (r < 0)
                return r;
        handles_on_wake(runner->handles, on_woken);
        r = connect_supervisor(runner, fd_take(&lane_fd));
        if (r < 0)
                return r;
        return log_queue_init(&runner->log, runner->endpoint, runner->handles, connection_peer(runner->supervisor),
                              options->max_log_records, options->park_log);
}

/* runner_new() - on the connection that was made. */
static int runner_new(Runner **ret_runner, const struct baton_runner_options *options, int lane_fd_consume) {
        _cleanup_fd_ int lane_fd = lane_fd_consume;
        _cleanup_(runner_freep) Runner *runner = calloc(1, sizeof(*runner));
        int r;

        if (!runner)
                return -ENOMEM;
        r = set_up(runner, options, fd_take(&lane_fd));
        if (r < 0)
                return r;
        *ret_runner = TAKE_PTR(runner);
        return 0;
}

int baton_runner_new(struct baton_runner **ret_runner, const struct baton_runner_options *options) {
        struct baton_runner_options given;
        int lane_fd, r;

        *ret_runner = NULL;
        if (!copy_options(options, &given) ||
            (given.software && !utf8_is_valid(given.software, strlen(given.software))))
                return -EINVAL;
        r = bootstrap_connect(given.bootstrap, &lane_fd);
        if (r < 0)
                return r;
        r = runner_new(ret_runner, &given, lane_fd);
        if (r < 0)
                (void) dprintf(STDERR_FILENO, "%s: cannot set up the connection to the supervisor: %s\n",
                               program_invocation_short_name, strerror(-r));
        return r;
}

void baton_runner_free(struct baton_runner *runner) {
        if (!runner)
                return;
        save_free(runner);
        restore_free(runner);
        attach_free(runner);
        runner->supervisor = connection_free(runner->supervisor);
        lifecycle_free(runner);
        checkpoint_forget(runner);
        service_free(runner);
        log_queue_deinit(&runner->log);
        handles_free(runner->handles);
        endpoint_free(runner->endpoint);
        methods_deinit(&runner->methods);
        free(runner->software);
        free(runner);
}

/* may_leave() - whether all that was answered and logged has arrived, or never will. */
static bool may_leave(Runner *runner) {
        const Peer *peer = connection_peer(runner->supervisor);

        if (!runner->leaving && !atomic_load_explicit(&runner->quit, memory_order_relaxed))
                return false;
        log_queue_collect(&runner->log);
        return peer_is_flushed(peer) && attach_is_flushed(runner) &&
               (log_queue_is_empty(&runner->log) || !peer_is_ready(peer));
}

/* leave() - the end, by ourselves. */
static void leave(Runner *runner, Status status, const char *reason, int result) {
        attach_close(runner, status, reason);
        peer_close(connection_peer(runner->supervisor), status, "%s", reason);
        runner->ended = true;
        runner->result = result;
}

int baton_runner_dispatch(struct baton_runner *runner, int timeout_ms) {
        char reason[RUNNER_REASON_SIZE];
        int r;

        if (runner->ended)
                return runner->result;
        runner->dispatched = true;
        r = handles_dispatch(runner->handles, timeout_ms);
        if (r == -EBUSY)
                return r;
        if (!runner->ended && r < 0) {
                (void) snprintf(reason, sizeof(reason), "cannot wait for events: %s", strerror(-r));
                leave(runner, STATUS_INTERNAL, reason, r);
        } else if (!runner->ended && may_leave(runner)) {
                leave(runner, STATUS_OK, runner->leaving ? "stopped" : "the runner has quit", RESULT_ENDED);
        }
        if (!runner->ended)
                return 0;
        handles_close(runner->handles); /* nobody collects any more what other threads hand in */
        log_queue_close(&runner->log);
        return runner->result;
}

int baton_runner_run(struct baton_runner *runner) {
        int r;

        do
                r = baton_runner_dispatch(runner, -1);
        while (r == 0);
        return MIN(r, 0);
}

int baton_runner_fd(struct baton_runner *runner) {
        return endpoint_fd(runner->endpoint);
}

void baton_runner_quit(struct baton_runner *runner) {
        atomic_store(&runner->quit, true);
        endpoint_wake(runner->endpoint);
}

const char *baton_runner_reason(struct baton_runner *runner) {
        return runner->reason;
}

uint64_t baton_runner_instance(struct baton_runner *runner) {
        return peer_remote(connection_peer(runner->supervisor))->instance;
}

/* ---- methods ---- */

void runner_serve(Runner *runner, Connection *connection, Call *call) {
        if (method_is_builtin(call_envelope(call)->method))
                builtin_call(runner, connection, call);
        else if (lifecycle_is_serving(runner))
                methods_call(&runner->methods, connection, call);
        else
                lifecycle_refuse(runner, call, "calls");
}

int baton_runner_add_method(struct baton_runner *runner, const char *name, baton_method_fn function, void *userdata) {
        return methods_add(&runner->methods, name, function, userdata);
}

int baton_runner_describe_method(struct baton_runner *runner, const char *name, const char *request_type,
                                 const char *response_type, unsigned flags) {
        return methods_describe(&runner->methods, name, request_type, response_type, flags);
}

int baton_runner_set_health(struct baton_runner *runner, const char *service, int serving) {
        return methods_set_health(&runner->methods, service, serving);
}

void baton_runner_set_default(struct baton_runner *runner, baton_method_fn function, void *userdata) {
        runner->methods.fallback = function;
        runner->methods.fallback_userdata = userdata;
}

/* ---- calls ---- */

struct baton_runner *baton_call_runner(struct baton_call *call) {
        const Connection *connection = baton_call_connection(call);

        if (connection_handler(connection) == &attach_handler)
                return attach_runner(connection);
        return connection_handler(connection) == &supervisor_handler ? connection_owner(connection) : NULL;
}

int baton_runner_call(struct baton_runner *runner, const struct baton_call_parameters *parameters,
                      baton_answer_fn function, void *userdata, struct baton_request **ret_request) {
        return baton_connection_call(runner->supervisor, parameters, function, userdata, ret_request);
}

/* ---- channels ---- */

int baton_runner_take_channel(struct baton_runner *runner, enum baton_channel channel, int *ret_fd) {
        return peer_take_channel(connection_peer(runner->supervisor), channel, ret_fd);
}

int baton_runner_frame_channel(struct baton_runner *runner, enum baton_channel channel) {
        return connection_frame_channel(runner->supervisor, channel);
}

void baton_runner_on_channel(struct baton_runner *runner,
                             void (*function)(struct baton_runner *, enum baton_channel, void *), void *userdata) {
        runner->on_channel = function;
        runner->on_channel_userdata = userdata;
}

void baton_runner_on_renewal(struct baton_runner *runner, void (*function)(struct baton_runner *, void *),
                             void *userdata) {
        runner->on_renewal = function;
        runner->on_renewal_userdata = userdata;
}

/* ---- log ---- */

void baton_log(struct baton_runner *runner, enum baton_level level, const char *target, const char *file,
               unsigned line, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        log_queue_add(&runner->log, (unsigned) level, target, file, line, format, arguments);
        va_end(arguments);
}
