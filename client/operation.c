/* SPDX-License-Identifier: Apache-2.0 */

/*
 * What is asked of the supervisor: start, stop, signal, logs, attach. Each is an operation: a call of baton.Control, whose
 * end is told to a function, from the loop. What fails before anything was sent is told the same way, from a task: who
 * begins an operation need not be ready for its end.
 *
 * A function that waits is an operation whose end is noted in a structure on the stack, and the loop until then.
 */

#include "client/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/program.h"
#include "common/fd.h"
#include "proto/message.h"

typedef void (*GenericFunction)(void);

typedef struct OperationKind {
        const ProtobufCMessageDescriptor *response;
        /* Tells the operation's function; @message NULL: @result is not 0. */
        void (*tell)(Operation *operation, int result, const void *message);
} OperationKind;

struct Operation {
        LIST_ENTRY(Operation) link;
        Client *client;
        const OperationKind *kind;
        ControlCall call;
        EndpointTask failed; /* it was over before it began */
        GenericFunction function;
        void *userdata;
};

static void operation_free(Operation *operation) {
        endpoint_cancel(operation->client->endpoint, &operation->failed);
        LIST_REMOVE(operation, link);
        control_call_deinit(&operation->call);
        free(operation);
}

void operation_free_all(Client *client) {
        Operation *operation;

        while ((operation = LIST_FIRST(&client->operations)))
                operation_free(operation);
}

/* finish() - the answer is there: tells it. */
static void finish(Operation *operation) {
        Client *client = operation->client;
        _cleanup_message_ void *message = control_unpack(&operation->call, operation->kind->response);
        ControlFailure *failure = &operation->call.failure;
        int result;

        if (!message && failure->status == STATUS_OK) {
                failure->status = STATUS_INTERNAL;
                failure->message = strdup("the supervisor's answer is no message of the expected type");
        }
        result = client_fail(client, failure);
        LIST_REMOVE(operation, link);
        operation->kind->tell(operation, result, message);
        control_call_deinit(&operation->call);
        free(operation);
}

static void told(ControlCall *call) {
        finish(CONTAINER_OF(call, Operation, call));
}

static void failed(EndpointTask *task) {
        finish(CONTAINER_OF(task, Operation, failed));
}

/* operation_new() - 0, -ESHUTDOWN, -ENOMEM. */
static int operation_new(Client *client, const OperationKind *kind, GenericFunction function, void *userdata,
                         Operation **ret_operation) {
        Operation *operation;

        *ret_operation = NULL;
        if (client->control.ended)
                return -ESHUTDOWN;
        operation = calloc(1, sizeof(*operation));
        if (!operation)
                return -ENOMEM;
        operation->client = client;
        operation->kind = kind;
        operation->function = function;
        operation->userdata = userdata;
        operation->failed = ENDPOINT_TASK_NULL(failed);
        LIST_INSERT_HEAD(&client->operations, operation, link);
        *ret_operation = operation;
        return 0;
}

/* begun() - its call is under way, or has failed already. */
static void begun(Operation *operation) {
        operation->call.told = told;
        if (operation->call.done)
                endpoint_defer(operation->client->endpoint, &operation->failed);
}

/* ---- waiting ---- */

/* One that is waited for: what came of it. */
typedef struct Wait {
        bool done;
        int result;
        ControlFailure failure;
        void *out; /* the caller's structure */
} Wait;

/* note() - the end of an operation that is waited for. */
static void note(Client *client, int result, void *userdata) {
        Wait *wait = userdata;

        wait->done = true;
        wait->result = result;
        wait->failure = client->last;
        client->last = (ControlFailure){ 0 };
}

/* wait_for() - @r is what beginning it returned. */
static int wait_for(Client *client, Operation *operation, Wait *wait, int r) {
        if (r == 0)
                r = client_wait(client, &wait->done);
        if (wait->done) {
                (void) client_fail(client, &wait->failure);
                return wait->result < 0 ? client_fail_errno(client, wait->result) : wait->result;
        }
        if (operation)
                operation_free(operation);
        return client_fail_errno(client, r);
}

/* copy_sized() - as much of @from, which is @size bytes and begins with its size, as the caller's @to has room for. */
static void copy_sized(void *to, const void *from, size_t size) {
        size_t room;

        if (!to)
                return;
        memcpy(&room, to, sizeof(room));
        memcpy((char *) to + sizeof(room), (const char *) from + sizeof(room), MIN(room, size) - sizeof(room));
}

/* ---- start ---- */

static bool copy_parameters(const struct baton_start_parameters *given, struct baton_start_parameters *ret) {
        *ret = (struct baton_start_parameters){ 0 };
        memcpy(ret, given, MIN(given->size, sizeof(*ret)));
        return given->size >= sizeof(given->size) && (ret->program || ret->name);
}

/* find_program() - as execvp() would here, then beside baton. A name that is not there goes as it is, to fail with words. */
static int find_program(const Client *client, const char *program, char **ret_path) {
        _cleanup_free_ char *beside = strdup(client->baton), *directory = getcwd(NULL, 0);
        char *slash = beside ? strrchr(beside, '/') : NULL;
        int r;

        if (!beside)
                return -ENOMEM;
        if (slash)
                *slash = '\0';
        r = program_find(program, getenv("PATH"), slash ? beside : NULL, directory ? directory : "/", ret_path);
        if (r == -ENOENT || r == -EACCES) {
                *ret_path = strdup(program);
                r = *ret_path ? 0 : -ENOMEM;
        }
        return r;
}

static size_t count(char *const *strings) {
        size_t n = 0;

        while (strings && strings[n])
                n++;
        return n;
}

static void tell_started(Operation *operation, int result, const void *message) {
        baton_started_fn function = (baton_started_fn) operation->function;
        const ControlStarted *response = message;
        struct baton_started started = { .size = sizeof(started) };

        if (response) {
                (void) snprintf(started.name, sizeof(started.name), "%s", response->name);
                started.instance = response->instance;
                started.pid = response->pid;
        }
        if (function)
                function(operation->client, result, response ? &started : NULL, operation->userdata);
}

static void fill_limits(Baton__Control__Limits *limits, const struct baton_start_parameters *given) {
        baton__control__limits__init(limits);
        limits->max_frame = given->max_frame;
        limits->max_calls = given->max_calls;
        limits->fd_credit = given->fd_credit;
        limits->stream_window = given->stream_window;
        limits->max_memory = given->max_memory;
        limits->max_held_fds = given->max_held_fds;
        limits->max_waiting = given->max_waiting;
        limits->max_waiting_bytes = given->max_waiting_bytes;
        limits->max_unsent = given->max_unsent;
        limits->max_object = given->max_object;
}

/* ask_start() - everything has been looked up. 0 or -ENOMEM. */
static int ask_start(Operation *operation, const struct baton_start_parameters *given, const char *path) {
        char *const *environment = given->environment ? (char *const *) given->environment : environ;
        _cleanup_free_ ProtobufCBinaryData *variables = control_bytes_array(environment, count(environment));
        _cleanup_free_ ProtobufCBinaryData *arguments = NULL;
        _cleanup_free_ char *directory = given->directory ? strdup(given->directory) : getcwd(NULL, 0);
        ControlStart request = BATON__CONTROL__START_REQUEST__INIT;
        Baton__Control__Limits limits;

        request.n_arguments = count((char *const *) given->arguments);
        arguments = control_bytes_array((char *const *) given->arguments, request.n_arguments);
        if (!variables || !arguments)
                return -ENOMEM;
        fill_limits(&limits, given);
        request.kind = (Baton__Control__StartRequest__Kind) given->kind;
        request.name = (char *) (given->name ? given->name : "");
        request.program = control_bytes(path);
        request.arguments = arguments;
        request.environment = variables;
        request.n_environment = count(environment);
        request.directory = control_bytes(directory);
        request.start_timeout_us = given->start_timeout_us;
        request.max_attached = given->max_attached;
        request.park_output = given->park_output;
        request.limits = &limits;
        control_begin(&operation->client->control, &operation->call, "Start", &request.base, 0);
        begun(operation);
        return 0;
}

/* ask_configured() - the one that is there by that name. */
static int ask_configured(Operation *operation, const char *name) {
        ControlStart request = BATON__CONTROL__START_REQUEST__INIT;

        request.name = (char *) name;
        control_begin(&operation->client->control, &operation->call, "Start", &request.base, 0);
        begun(operation);
        return 0;
}

static int begin_start(Client *client, const struct baton_start_parameters *parameters, baton_started_fn function,
                       void *userdata, Operation **ret_operation) {
        static const OperationKind kind = { &baton__control__start_response__descriptor, tell_started };
        struct baton_start_parameters given;
        _cleanup_free_ char *path = NULL;
        int r;

        *ret_operation = NULL;
        if (!copy_parameters(parameters, &given))
                return -EINVAL;
        r = given.program ? find_program(client, given.program, &path) : 0;
        if (r == 0)
                r = operation_new(client, &kind, (GenericFunction) function, userdata, ret_operation);
        if (r < 0)
                return r;
        r = path ? ask_start(*ret_operation, &given, path) : ask_configured(*ret_operation, given.name);
        if (r < 0) {
                operation_free(*ret_operation);
                *ret_operation = NULL;
        }
        return r;
}

int baton_client_begin_start(struct baton_client *client, const struct baton_start_parameters *parameters,
                             baton_started_fn function, void *userdata) {
        Operation *operation = NULL;

        return client_fail_errno(client, begin_start(client, parameters, function, userdata, &operation));
}

static void note_started(Client *client, int result, const struct baton_started *started, void *userdata) {
        Wait *wait = userdata;

        note(client, result, userdata);
        if (started)
                copy_sized(wait->out, started, sizeof(*started));
}

int baton_client_start(struct baton_client *client, const struct baton_start_parameters *parameters,
                       struct baton_started *ret_started) {
        Wait wait = { .out = ret_started };
        Operation *operation = NULL;
        int r = client_may_wait(client);

        if (r == 0)
                r = begin_start(client, parameters, note_started, &wait, &operation);
        return wait_for(client, operation, &wait, r);
}

/* ---- stop ---- */

static void tell_stopped(Operation *operation, int result, const void *message) {
        baton_stopped_fn function = (baton_stopped_fn) operation->function;
        const ControlStopped *response = message;
        struct baton_stopped stopped = { .size = sizeof(stopped) };

        if (response && response->exit)
                stopped.exit =
                        (struct baton_exit){ (enum baton_exit_how) response->exit->how, response->exit->status };
        if (response)
                stopped.killed = response->killed;
        if (function)
                function(operation->client, result, response ? &stopped : NULL, operation->userdata);
}

static int begin_stop(Client *client, const char *name, uint64_t timeout_us, baton_stopped_fn function, void *userdata,
                      Operation **ret_operation) {
        static const OperationKind kind = { &baton__control__stop_response__descriptor, tell_stopped };
        int r = operation_new(client, &kind, (GenericFunction) function, userdata, ret_operation);

        if (r < 0)
                return r;
        control_begin_stop(&client->control, &(*ret_operation)->call, name, timeout_us);
        begun(*ret_operation);
        return 0;
}

int baton_client_begin_stop(struct baton_client *client, const char *name, uint64_t timeout_us,
                            baton_stopped_fn function, void *userdata) {
        Operation *operation = NULL;

        return client_fail_errno(client, begin_stop(client, name, timeout_us, function, userdata, &operation));
}

static void note_stopped(Client *client, int result, const struct baton_stopped *stopped, void *userdata) {
        Wait *wait = userdata;

        note(client, result, userdata);
        if (stopped)
                copy_sized(wait->out, stopped, sizeof(*stopped));
}

int baton_client_stop(struct baton_client *client, const char *name, uint64_t timeout_us,
                      struct baton_stopped *ret_stopped) {
        Wait wait = { .out = ret_stopped };
        Operation *operation = NULL;
        int r = client_may_wait(client);

        if (r == 0)
                r = begin_stop(client, name, timeout_us, note_stopped, &wait, &operation);
        return wait_for(client, operation, &wait, r);
}

/* ---- signal ---- */

static void tell_signalled(Operation *operation, int result, const void *message) {
        baton_signalled_fn function = (baton_signalled_fn) operation->function;

        (void) message;
        if (function)
                function(operation->client, result, operation->userdata);
}

static int begin_signal(Client *client, const char *name, int signal, baton_signalled_fn function, void *userdata,
                        Operation **ret_operation) {
        static const OperationKind kind = { &baton__control__signal_response__descriptor, tell_signalled };
        int r = operation_new(client, &kind, (GenericFunction) function, userdata, ret_operation);

        if (r < 0)
                return r;
        control_begin_signal(&client->control, &(*ret_operation)->call, name, signal);
        begun(*ret_operation);
        return 0;
}

int baton_client_begin_signal(struct baton_client *client, const char *name, int signal, baton_signalled_fn function,
                              void *userdata) {
        Operation *operation = NULL;

        return client_fail_errno(client, begin_signal(client, name, signal, function, userdata, &operation));
}

int baton_client_signal(struct baton_client *client, const char *name, int signal) {
        Wait wait = { 0 };
        Operation *operation = NULL;
        int r = client_may_wait(client);

        if (r == 0)
                r = begin_signal(client, name, signal, note, &wait, &operation);
        return wait_for(client, operation, &wait, r);
}

/* ---- logs ---- */

static void fill_line(struct baton_log_line *line, const ControlLogLine *from) {
        *line = (struct baton_log_line){
                .seq = from->seq,
                .time_us = from->time_us,
                .source = (enum baton_log_source) from->source,
                .text = from->text.len > 0 ? (const char *) from->text.data : "",
                .size = from->text.len,
                .partial = from->partial,
                .level = from->level,
                .target = from->target,
                .file = from->file,
                .line = from->line,
        };
}

static void tell_logs(Operation *operation, int result, const void *message) {
        baton_logs_fn function = (baton_logs_fn) operation->function;
        const ControlLogs *response = message;
        struct baton_logs logs = { .size = sizeof(logs) };
        _cleanup_free_ struct baton_log_line *lines = calloc(response ? response->n_lines + 1 : 1, sizeof(*lines));

        if (!lines) {
                result = -ENOMEM;
                response = NULL;
        }
        for (size_t i = 0; response && i < response->n_lines; i++)
                fill_line(&lines[i], response->lines[i]);
        if (response) {
                logs.lines = lines;
                logs.n_lines = response->n_lines;
                logs.next_seq = response->next_seq;
                logs.dropped = response->dropped;
                logs.ended = response->ended;
        }
        if (response && response->exit)
                logs.exit = (struct baton_exit){ (enum baton_exit_how) response->exit->how, response->exit->status };
        function(operation->client, result, response ? &logs : NULL, operation->userdata);
}

static int begin_logs(Client *client, const char *name, uint64_t from_seq, bool wait, baton_logs_fn function,
                      void *userdata, Operation **ret_operation) {
        static const OperationKind kind = { &baton__control__logs_response__descriptor, tell_logs };
        int r = function ? operation_new(client, &kind, (GenericFunction) function, userdata, ret_operation) : -EINVAL;

        if (r < 0)
                return r;
        control_begin_logs(&client->control, &(*ret_operation)->call, name, from_seq, wait);
        begun(*ret_operation);
        return 0;
}

int baton_client_begin_logs(struct baton_client *client, const char *name, uint64_t from_seq, int wait,
                            baton_logs_fn function, void *userdata) {
        Operation *operation = NULL;

        return client_fail_errno(client,
                                 begin_logs(client, name, from_seq, wait != 0, function, userdata, &operation));
}

typedef struct WaitLogs {
        Wait wait;
        baton_logs_fn function;
        void *userdata;
} WaitLogs;

static void note_logs(Client *client, int result, const struct baton_logs *logs, void *userdata) {
        WaitLogs *waiting = userdata;

        if (logs)
                waiting->function(client, result, logs, waiting->userdata);
        note(client, result, &waiting->wait);
}

int baton_client_logs(struct baton_client *client, const char *name, uint64_t from_seq, int wait,
                      baton_logs_fn function, void *userdata) {
        WaitLogs waiting = { .function = function, .userdata = userdata };
        Operation *operation = NULL;
        int r = client_may_wait(client);

        if (r == 0)
                r = function ? begin_logs(client, name, from_seq, wait != 0, note_logs, &waiting, &operation)
                             : -EINVAL;
        return wait_for(client, operation, &waiting.wait, r);
}

/* ---- attach ---- */

/* connect_lane() - of the answer. 0 or a negative errno. */
static int connect_lane(Operation *operation, const ControlAttached *response, Connection **ret_connection) {
        ControlCall *call = &operation->call;

        if (response->lane >= call->n_fds || call->fds[response->lane] < 0)
                return -EPROTO;
        return attached_new(operation->client, fd_take(&call->fds[response->lane]), ret_connection);
}

static void tell_attached(Operation *operation, int result, const void *message) {
        baton_attached_fn function = (baton_attached_fn) operation->function;
        Connection *connection = NULL;

        if (message)
                result = client_fail_errno(operation->client, connect_lane(operation, message, &connection));
        function(operation->client, result, connection, operation->userdata);
}

static int begin_attach(Client *client, const char *name, uint64_t timeout_us, baton_attached_fn function,
                        void *userdata, Operation **ret_operation) {
        static const OperationKind kind = { &baton__control__attach_response__descriptor, tell_attached };
        int r = function ? operation_new(client, &kind, (GenericFunction) function, userdata, ret_operation) : -EINVAL;

        if (r < 0)
                return r;
        control_begin_attach(&client->control, &(*ret_operation)->call, name, timeout_us);
        begun(*ret_operation);
        return 0;
}

int baton_client_begin_attach(struct baton_client *client, const char *name, uint64_t timeout_us,
                              baton_attached_fn function, void *userdata) {
        Operation *operation = NULL;

        return client_fail_errno(client, begin_attach(client, name, timeout_us, function, userdata, &operation));
}

static void note_attached(Client *client, int result, struct baton_connection *connection, void *userdata) {
        Wait *wait = userdata;
        Connection **ret_connection = wait->out;

        note(client, result, userdata);
        *ret_connection = connection;
}

int baton_client_attach(struct baton_client *client, const char *name, uint64_t timeout_us,
                        struct baton_connection **ret_connection) {
        Wait wait = { .out = ret_connection };
        Operation *operation = NULL;
        int r;

        *ret_connection = NULL;
        r = client_may_wait(client);
        if (r == 0)
                r = begin_attach(client, name, timeout_us, note_attached, &wait, &operation);
        return wait_for(client, operation, &wait, r);
}
