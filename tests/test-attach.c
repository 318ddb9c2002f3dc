/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libbaton's client half with the built programs: private runners, connections of one's own to them, blocking and in
 * somebody else's loop. Many clients at once; clients and runners that are killed; what is open in each process after a
 * thousand attachments; and that calls over a connection do not wake the supervisor.
 */

#include "tests/test.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/client.h"
#include "common/clock.h"
#include "common/fd.h"
#include "proto/values.h"
#include "tests/seam.h"

enum { CLIENTS = 32, CALLS = 1000 };

typedef struct Fixture {
        struct baton_client *client;
        struct baton_started started;
        struct baton_connection *connection;
} Fixture;

static const char *program(void) {
        static char path[4096];

        (void) snprintf(path, sizeof(path), "%s/baton-runner-echo", getenv("BATON_LIBEXEC"));
        return path;
}

static struct baton_start_parameters start_parameters(void) {
        return (struct baton_start_parameters){ .size = sizeof(struct baton_start_parameters), .program = program() };
}

static void start(Fixture *f, const struct baton_start_parameters *parameters) {
        *f = (Fixture){ .started = { .size = sizeof(f->started) } };
        assert_int_equal(baton_client_new_private(&f->client, NULL), 0);
        assert_int_equal(baton_client_start(f->client, parameters, &f->started), 0);
}

static void set_up(Fixture *f) {
        struct baton_start_parameters parameters = start_parameters();

        start(f, &parameters);
        assert_int_equal(baton_client_attach(f->client, f->started.name, 0, &f->connection), 0);
}

static void tear_down(Fixture *f) {
        baton_client_free(f->client);
}

static struct baton_call_parameters call_of(const char *method, const void *data, size_t size) {
        return (struct baton_call_parameters){
                .size = sizeof(struct baton_call_parameters),
                .method = method,
                .data = data,
                .data_size = size,
        };
}

static struct baton_answer *ask(struct baton_connection *connection, const char *method, const char *data) {
        struct baton_call_parameters call = call_of(method, data, strlen(data));
        struct baton_answer *answer = NULL;

        assert_int_equal(baton_connection_call_wait(connection, &call, &answer), 0);
        return answer;
}

static void assert_echo(struct baton_connection *connection, const char *data) {
        struct baton_answer *answer = ask(connection, "echo.Echo/Unary", data);

        assert_int_equal(answer->status, BATON_OK);
        assert_int_equal(answer->size, strlen(data));
        assert_memory_equal(answer->data, data, answer->size);
        baton_answer_free(answer);
}

/* A request of baton.Values with one number. */
typedef struct Number {
        uint8_t *data;
        size_t size;
} Number;

static Number number(ValueType type, uint64_t n) {
        Baton__Values *values = values_new();
        Baton__Value *value;
        Number result;

        assert_non_null(values);
        assert_int_equal(values_add(values, type, &value), 0);
        if (type == VALUE_U64)
                value->u = n;
        else
                value->i = (int64_t) n;
        assert_int_equal(values_pack(values, &result.data, &result.size), 0);
        (void) values_free(values);
        return result;
}

static struct baton_call_parameters call_with(const char *method, Number request) {
        struct baton_call_parameters call = call_of(method, request.data, request.size);

        call.type = VALUES_TYPE;
        return call;
}

/* ---- a stream, both ways ---- */

enum { ITEMS = 1000, ITEM_SIZE = 4096 };

typedef struct Stream {
        struct baton_request *request;
        unsigned to_send, received, n_waits;
        int stop; /* takes nothing */
        int over;
        enum baton_status status;
} Stream;

static void send_items(void *userdata) {
        static char item[ITEM_SIZE];
        Stream *stream = userdata;
        int r = 0;

        while (stream->to_send > 0 && r == 0) {
                r = baton_request_send(stream->request, "", item, sizeof(item));
                stream->to_send -= r == 0;
        }
        stream->n_waits += r == -EAGAIN;
        if (stream->to_send == 0)
                (void) baton_request_end(stream->request);
}

static int take_item(const struct baton_item *item, void *userdata) {
        Stream *stream = userdata;

        if (stream->stop)
                return 1;
        stream->received += item->size == ITEM_SIZE;
        return 0;
}

static void stream_over(const struct baton_answer *answer, void *userdata) {
        Stream *stream = userdata;

        stream->over = 1;
        stream->status = answer->status;
}

static void open_stream(Fixture *f, Stream *stream) {
        struct baton_call_parameters call = call_of("bidi", "", 0);

        call.stream = 1;
        call.on_item = take_item;
        call.on_writable = send_items;
        assert_int_equal(baton_connection_call(f->connection, &call, stream_over, stream, &stream->request), 0);
        send_items(stream);
}

static void set_up_streams(Fixture *f) {
        struct baton_start_parameters parameters = { .size = sizeof(parameters) };
        char path[4096];

        (void) snprintf(path, sizeof(path), "%s/tests/stream-runner", getenv("BATON_LIBEXEC"));
        parameters.program = path;
        start(f, &parameters);
        assert_int_equal(baton_client_attach(f->client, f->started.name, 0, &f->connection), 0);
}

static void test_stream(void **state) {
        Stream stream = { .to_send = ITEMS };
        Fixture f;

        (void) state;
        set_up_streams(&f);
        open_stream(&f, &stream);
        while (!stream.over)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(stream.status, BATON_OK);
        assert_int_equal(stream.received, ITEMS);
        assert_true(stream.n_waits > 0); /* more than a window was under way */
        tear_down(&f);
}

/* What had come from a runner that dies is there to be taken, and then the end. */
static void test_stream_of_a_runner_that_dies(void **state) {
        Stream stream = { .to_send = 10, .stop = 1 }, other = { .to_send = 1 };
        Fixture f;

        (void) state;
        set_up_streams(&f);
        open_stream(&f, &stream);
        open_stream(&f, &other); /* its end says that the items before it are here */
        while (!other.over)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(baton_client_signal(f.client, f.started.name, SIGKILL), 0);
        assert_int_equal(baton_client_stop(f.client, f.started.name, 0, NULL), 0);
        stream.stop = 0;
        baton_request_resume(stream.request);
        while (!stream.over)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(stream.received, 10);
        tear_down(&f);
}

/* ---- what the processes hold ---- */

static size_t open_in(int pid) {
        char path[64], line[256];
        size_t n = 0;
        FILE *list;

        (void) snprintf(path, sizeof(path), "ls /proc/%d/fd", pid);
        list = popen(path, "r");
        assert_non_null(list);
        while (fgets(line, sizeof(line), list))
                n++;
        (void) pclose(list);
        return n;
}

static int parent_of(int pid) {
        char path[64];
        int parent = 0;
        FILE *file;

        (void) snprintf(path, sizeof(path), "/proc/%d/stat", pid);
        file = fopen(path, "re");
        assert_non_null(file);
        assert_int_equal(fscanf(file, "%*d (%*[^)]) %*c %d", &parent), 1);
        (void) fclose(file);
        return parent;
}

/* supervisor_of() - the child of the runner's parent that is one. */
static int supervisor_of(int runner) {
        char path[64], name[64] = "";
        int keeper = parent_of(runner), pid;
        FILE *children;

        (void) snprintf(path, sizeof(path), "/proc/%d/task/%d/children", keeper, keeper);
        children = fopen(path, "re");
        assert_non_null(children);
        while (fscanf(children, "%d", &pid) == 1 && strncmp(name, "baton-superviso", 15) != 0) {
                FILE *file;

                (void) snprintf(path, sizeof(path), "/proc/%d/comm", pid);
                file = fopen(path, "re");
                assert_non_null(file);
                assert_non_null(fgets(name, sizeof(name), file));
                (void) fclose(file);
                if (strncmp(name, "baton-superviso", 15) == 0)
                        break;
        }
        (void) fclose(children);
        assert_int_equal(strncmp(name, "baton-superviso", 15), 0);
        return pid;
}

static unsigned long switches_of(int pid) {
        unsigned long voluntary = 0, other = 0;
        char path[64], line[256];
        FILE *file;

        (void) snprintf(path, sizeof(path), "/proc/%d/status", pid);
        file = fopen(path, "re");
        assert_non_null(file);
        while (fgets(line, sizeof(line), file)) {
                (void) sscanf(line, "voluntary_ctxt_switches: %lu", &voluntary);
                (void) sscanf(line, "nonvoluntary_ctxt_switches: %lu", &other);
        }
        (void) fclose(file);
        return voluntary + other;
}

/* settle() - what a start leaves to be done is done: a signal goes through supervisor and keeper, behind all of it. */
static void settle(Fixture *f) {
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(baton_client_signal(f->client, f->started.name, SIGCONT), 0);
}

/* until_open() - until the process has @n descriptors open; it looks between calls, which keep everybody going. */
static void until_open(Fixture *f, int pid, size_t n) {
        while (open_in(pid) != n)
                assert_echo(f->connection, "x");
}

/* ---- plain use ---- */

static void test_plain_use(void **state) {
        struct baton_stopped stopped = { .size = sizeof(stopped) };
        Fixture f;

        (void) state;
        set_up(&f);
        assert_string_equal(f.started.name, "baton-runner-echo.1");
        assert_true(f.started.pid > 0 && f.started.instance > 0);
        assert_echo(f.connection, "hello");
        assert_string_equal(baton_client_reason(f.client), "");
        assert_string_equal(baton_client_failure(f.client)->message, "");
        assert_int_equal(baton_client_stop(f.client, f.started.name, 0, &stopped), 0);
        assert_int_equal(stopped.exit.how, BATON_EXIT_EXITED);
        assert_int_equal(stopped.exit.status, 0);
        assert_false(stopped.killed);
        tear_down(&f);
}

static void test_answers_are_copies(void **state) {
        struct baton_call_parameters call = call_of("echo.Echo/Unary", "payload", 7);
        struct baton_answer *answer;
        const void *value;
        int fds[2], fd;
        size_t size;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        call.type = "test.Type";
        call.metadata_key = "key";
        call.metadata_value = "value";
        call.metadata_size = 5;
        call.fds_consume = &fds[0];
        call.n_fds = 1;
        assert_int_equal(baton_connection_call_wait(f.connection, &call, &answer), 0);
        assert_echo(f.connection, "another");
        assert_string_equal(answer->type, "test.Type");
        assert_int_equal(answer->size, 7);
        assert_memory_equal(answer->data, "payload", 7);
        value = baton_answer_metadata(answer, "key", &size);
        assert_int_equal(size, 5);
        assert_memory_equal(value, "value", 5);
        assert_null(baton_answer_detail(answer, "none", &size));
        assert_int_equal(answer->n_fds, 1);
        fd = fd_take(&answer->fds[0]);
        baton_answer_free(answer);
        assert_int_equal(send(fd, "x", 1, 0), 1);
        assert_true(test_readable(fds[1]));
        fd_close(fd);
        fd_close(fds[1]);
        baton_answer_free(NULL);
        tear_down(&f);
}

static void test_refusals(void **state) {
        static const char *const arguments[] = { "-c", "echo last words; exit 3", NULL };
        struct baton_start_parameters parameters = { .size = sizeof(parameters), .program = "/nowhere/at/all" };
        struct baton_connection *connection = (void *) &parameters;
        const struct baton_failure *failure;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(baton_client_start(f.client, &parameters, NULL), BATON_UNAVAILABLE);
        failure = baton_client_failure(f.client);
        assert_int_equal(failure->status, BATON_UNAVAILABLE);
        assert_int_equal(failure->reason, BATON_START_NOT_FOUND);
        assert_non_null(strstr(failure->message, "/nowhere/at/all"));
        parameters.program = "sh";
        parameters.arguments = arguments;
        assert_int_equal(baton_client_start(f.client, &parameters, NULL), BATON_UNAVAILABLE);
        failure = baton_client_failure(f.client);
        assert_int_equal(failure->reason, BATON_START_EXITED_EARLY);
        assert_int_equal(failure->exit.how, BATON_EXIT_EXITED);
        assert_int_equal(failure->exit.status, 3);
        assert_int_equal(failure->n_last_output, 1);
        assert_string_equal(failure->last_output[0], "last words");
        assert_int_equal(baton_client_attach(f.client, "nobody", 0, &connection), BATON_NOT_FOUND);
        assert_null(connection);
        assert_non_null(strstr(baton_client_failure(f.client)->message, "nobody"));
        parameters.program = NULL;
        assert_int_equal(baton_client_start(f.client, &parameters, NULL), -EINVAL);
        assert_string_equal(baton_client_failure(f.client)->message, strerror(EINVAL));
        assert_int_equal(baton_client_signal(f.client, f.started.name, 0), BATON_INVALID_ARGUMENT);
        assert_int_equal(baton_client_signal(f.client, f.started.name, SIGCONT), 0);
        assert_string_equal(baton_client_failure(f.client)->message, "");
        tear_down(&f);
}

static void take_logs(struct baton_client *client, int result, const struct baton_logs *logs, void *userdata) {
        struct baton_logs *last = userdata;

        (void) client;
        assert_int_equal(result, 0);
        for (size_t i = 0; i < logs->n_lines; i++)
                if (logs->lines[i].source == BATON_LOG_STDERR) {
                        assert_int_equal(logs->lines[i].size, 5);
                        assert_memory_equal(logs->lines[i].text, "\xff out", 5);
                }
        *last = *logs;
}

static void test_plain_program_and_its_log(void **state) {
        static const char *const arguments[] = { "-c", "printf '\\377 out\\n' >&2; echo $A; pwd; kill -9 $$", NULL };
        static const char *const environment[] = { "A=\xfe", NULL };
        struct baton_start_parameters parameters = {
                .size = sizeof(parameters),
                .kind = BATON_RUNNER_PLAIN,
                .name = "plain",
                .program = "/bin/sh",
                .arguments = arguments,
                .environment = environment,
                .directory = "/usr",
        };
        struct baton_stopped stopped = { .size = sizeof(stopped) };
        struct baton_connection *connection;
        struct baton_logs logs = { 0 };
        Fixture f;

        (void) state;
        start(&f, &parameters);
        while (!logs.ended)
                assert_int_equal(baton_client_logs(f.client, "plain", logs.next_seq, 1, take_logs, &logs), 0);
        assert_int_equal(logs.next_seq, 4);
        assert_int_equal(logs.dropped, 0);
        assert_int_equal(logs.exit.how, BATON_EXIT_SIGNALED);
        assert_int_equal(logs.exit.status, SIGKILL);
        assert_int_equal(baton_client_attach(f.client, "plain", 0, &connection), BATON_FAILED_PRECONDITION);
        assert_int_equal(baton_client_stop(f.client, "plain", 0, &stopped), 0);
        assert_int_equal(stopped.exit.status, SIGKILL);
        tear_down(&f);
}

static void test_options(void **state) {
        struct baton_client_options options = { .size = sizeof(options), .max_frame = 100 };
        struct baton_start_parameters parameters = start_parameters();
        struct baton_connection *connection;
        static char data[100000];
        struct baton_call_parameters call = call_of("echo.Echo/Unary", data, sizeof(data));
        struct baton_started started = { .size = sizeof(started) };
        struct baton_client *client;
        struct baton_answer *answer;

        (void) state;
        assert_int_equal(baton_client_new_private(&client, &options), -EINVAL);
        assert_null(client);
        options = (struct baton_client_options){ .size = sizeof(options), .arena_size = 12345 };
        assert_int_equal(baton_client_new_private(&client, &options), -EINVAL);
        options = (struct baton_client_options){ .size = sizeof(options), .baton = "/nowhere/baton" };
        assert_int_equal(baton_client_new_private(&client, &options), -ENOENT);
        options = (struct baton_client_options){ .size = sizeof(options), .max_frame = 65536, .max_object = 65536 };
        assert_int_equal(baton_client_new_private(&client, &options), 0);
        assert_int_equal(baton_client_start(client, &parameters, &started), 0);
        assert_int_equal(baton_client_attach(client, started.name, 0, &connection), 0);
        assert_int_equal(baton_connection_call_wait(connection, &call, &answer), 0);
        assert_int_equal(answer->status, BATON_RESOURCE_EXHAUSTED);
        baton_answer_free(answer);
        baton_client_free(client);
        baton_client_free(NULL);
}

/* ---- many clients ---- */

static void count_answer(const struct baton_answer *answer, void *userdata) {
        unsigned *n = userdata;

        assert_int_equal(answer->status, BATON_OK);
        (*n)++;
}

static void test_many_at_once(void **state) {
        struct baton_connection *connections[CLIENTS];
        struct baton_call_parameters call = call_of("echo.Echo/Unary", "many", 4);
        unsigned n = 0;
        Fixture f;

        (void) state;
        set_up(&f);
        for (unsigned i = 0; i < CLIENTS; i++)
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connections[i]), 0);
        for (unsigned i = 0; i < 100 * CLIENTS; i++)
                assert_int_equal(baton_connection_call(connections[i % CLIENTS], &call, count_answer, &n, NULL), 0);
        while (n < 100 * CLIENTS)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        for (unsigned i = 0; i < CLIENTS; i += 2)
                baton_connection_close(connections[i]);
        for (unsigned i = 1; i < CLIENTS; i += 2)
                assert_echo(connections[i], "still here");
        tear_down(&f);
}

static void test_quota(void **state) {
        struct baton_start_parameters parameters = start_parameters();
        struct baton_connection *connections[3], *refused;
        Fixture f;
        int r;

        (void) state;
        parameters.max_attached = 3;
        start(&f, &parameters);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connections[i]), 0);
        assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &refused), BATON_RESOURCE_EXHAUSTED);
        assert_non_null(strstr(baton_client_failure(f.client)->message, "3"));
        baton_connection_close(connections[1]);
        do /* the runner sees that end when it sees it */
                r = baton_client_attach(f.client, f.started.name, 0, &connections[1]);
        while (r == BATON_RESOURCE_EXHAUSTED);
        assert_int_equal(r, 0);
        for (unsigned i = 0; i < 3; i++)
                assert_echo(connections[i], "in");
        tear_down(&f);
}

static void test_attached_and_closed(void **state) {
        size_t ours, runner, supervisor, keeper;
        struct baton_connection *connection;
        int supervisor_pid, keeper_pid;
        Fixture f;

        (void) state;
        set_up(&f);
        settle(&f);
        assert_echo(f.connection, "x");
        supervisor_pid = supervisor_of(f.started.pid);
        keeper_pid = parent_of(f.started.pid);
        ours = (size_t) fd_count();
        runner = open_in(f.started.pid);
        supervisor = open_in(supervisor_pid);
        keeper = open_in(keeper_pid);
        for (unsigned i = 0; i < CALLS; i++) {
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connection), 0);
                if (i % 3 == 0)
                        assert_echo(connection, "x");
                baton_connection_close(connection);
        }
        assert_int_equal(fd_count(), ours);
        until_open(&f, f.started.pid, runner);
        until_open(&f, supervisor_pid, supervisor);
        assert_int_equal(open_in(keeper_pid), keeper);
        tear_down(&f);
}

/* Calls over a connection are no business of the supervisor's: it does not run at all. What it has to do otherwise, late
 * in a start, or once in a while, does not come in every round. */
static void test_supervisor_sleeps(void **state) {
        unsigned long before, after;
        unsigned rounds = 0;
        int supervisor;
        Fixture f;

        (void) state;
        set_up(&f);
        settle(&f);
        supervisor = supervisor_of(f.started.pid);
        do {
                before = switches_of(supervisor);
                for (unsigned i = 0; i < CALLS; i++)
                        assert_echo(f.connection, "call");
                after = switches_of(supervisor);
        } while (after != before && ++rounds < 10);
        assert_int_equal(after, before);
        tear_down(&f);
}

/* ---- deaths ---- */

/* A client in a process of its own: attached by a lane it was given, with calls open that hold descriptors. */
typedef struct Victim {
        int lane, ready;
} Victim;

static int hold_until_killed(void *argument) {
        Victim *victim = argument;
        Number delay = number(VALUE_U64, 3600 * USEC_PER_SEC);
        struct baton_call_parameters call = call_with("echo.Echo/Sleep", delay);
        struct baton_connection *connection;
        struct baton_answer *answer;
        Client client = { .software = (char *) "victim" };

        (void) victim->ready;
        if (endpoint_new(&client.endpoint) < 0 || handles_new(&client.handles, client.endpoint, NULL, NULL) < 0 ||
            attached_new(&client, victim->lane, &connection) < 0)
                return 1;
        for (unsigned i = 0; i < 20; i++) {
                int fds[2];

                if (fd_socketpair(SOCK_STREAM, fds) < 0)
                        return 1;
                call.fds_consume = fds;
                call.n_fds = 2;
                if (baton_connection_call(connection, &call, NULL, NULL, NULL) < 0)
                        return 1;
        }
        call = call_of("echo.Echo/Unary", "", 0);
        if (baton_connection_call_wait(connection, &call, &answer) < 0 || write(victim->ready, "r", 1) != 1)
                return 1;
        for (;;)
                (void) baton_client_dispatch(&client, -1);
}

/* take_lane() - attaches without making a connection of it. */
static int take_lane(Fixture *f) {
        ControlCall call;
        int lane;

        control_begin_attach(&f->client->control, &call, f->started.name, 0);
        assert_int_equal(control_wait(&f->client->control, &call), 0);
        assert_int_equal(call.failure.status, STATUS_OK);
        assert_int_equal(call.n_fds, 1);
        lane = fd_take(&call.fds[0]);
        control_call_deinit(&call);
        return lane;
}

static void test_client_is_killed(void **state) {
        size_t before;
        Victim victim;
        int ready[2];
        char byte;
        pid_t pid;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_echo(f.connection, "x");
        before = open_in(f.started.pid);
        for (unsigned i = 0; i < 3; i++) {
                victim.lane = take_lane(&f);
                assert_int_equal(pipe(ready), 0);
                victim.ready = ready[1];
                pid = test_child(hold_until_killed, &victim);
                fd_close(victim.lane);
                fd_close(ready[1]);
                assert_int_equal(read(ready[0], &byte, 1), 1);
                fd_close(ready[0]);
                assert_true(open_in(f.started.pid) >= before + 40);
                assert_int_equal(kill(pid, SIGKILL), 0);
                assert_int_equal(test_child_wait(pid), -SIGKILL);
                until_open(&f, f.started.pid, before);
        }
        tear_down(&f);
}

typedef struct End {
        unsigned n_ends, n_answers;
        enum baton_status status;
} End;

static void on_end(struct baton_connection *connection, enum baton_status status, const char *reason, void *userdata) {
        End *end = userdata;

        (void) connection;
        (void) status;
        assert_true(*reason);
        end->n_ends++;
}

static void on_answer(const struct baton_answer *answer, void *userdata) {
        End *end = userdata;

        end->status = answer->status;
        end->n_answers++;
}

static void test_runner_is_killed(void **state) {
        struct baton_connection *connections[4];
        Number delay = number(VALUE_U64, 3600 * USEC_PER_SEC);
        struct baton_call_parameters call = call_with("echo.Echo/Sleep", delay);
        struct baton_stopped stopped = { .size = sizeof(stopped) };
        struct baton_answer *answer;
        End ends[4] = { 0 };
        Fixture f;

        (void) state;
        set_up(&f);
        for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connections[i]), 0);
                baton_connection_on_end(connections[i], on_end, &ends[i]);
                assert_int_equal(baton_connection_call(connections[i], &call, on_answer, &ends[i], NULL), 0);
                assert_echo(connections[i], "x");
        }
        assert_int_equal(baton_client_signal(f.client, f.started.name, SIGKILL), 0);
        for (unsigned i = 0; i < 4; i++) {
                while (ends[i].n_ends == 0)
                        assert_int_equal(baton_client_dispatch(f.client, -1), 0);
                assert_int_equal(ends[i].n_answers, 1);
                assert_int_equal(ends[i].status, BATON_UNAVAILABLE);
                assert_int_equal(baton_connection_call_wait(connections[i], &call, &answer), -ESHUTDOWN);
        }
        assert_int_equal(baton_client_stop(f.client, f.started.name, 0, &stopped), 0);
        assert_int_equal(stopped.exit.how, BATON_EXIT_SIGNALED);
        assert_int_equal(stopped.exit.status, SIGKILL);
        baton_connection_close(connections[0]);
        free(delay.data);
        tear_down(&f);
}

static void test_supervisor_is_killed(void **state) {
        struct baton_start_parameters parameters = start_parameters();
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(kill(supervisor_of(f.started.pid), SIGKILL), 0);
        while (!*baton_client_reason(f.client))
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(baton_client_start(f.client, &parameters, NULL), -ESHUTDOWN);
        assert_string_equal(baton_client_failure(f.client)->message, baton_client_reason(f.client));
        tear_down(&f);
}

/* ---- threads, and who may wait where ---- */

static void *start_in_thread(void *argument) {
        set_up(argument);
        return NULL;
}

static void test_thread_that_started_it_ends(void **state) {
        pthread_t thread;
        Fixture f;

        (void) state;
        assert_int_equal(pthread_create(&thread, NULL, start_in_thread, &f), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(baton_client_dispatch(f.client, 0), 0);
        for (unsigned i = 0; i < 100; i++)
                assert_echo(f.connection, "it lives on");
        assert_int_equal(kill(f.started.pid, 0), 0);
        tear_down(&f);
}

static void *interrupt(void *argument) {
        baton_client_interrupt(argument);
        return NULL;
}

static void test_interrupted(void **state) {
        Number delay = number(VALUE_U64, 3600 * USEC_PER_SEC);
        struct baton_call_parameters call = call_with("echo.Echo/Sleep", delay);
        struct baton_answer *answer;
        pthread_t thread;
        Fixture f;

        (void) state;
        set_up(&f);
        for (unsigned i = 0; i < 20; i++) {
                assert_int_equal(pthread_create(&thread, NULL, interrupt, f.client), 0);
                assert_int_equal(baton_connection_call_wait(f.connection, &call, &answer), -EINTR);
                assert_null(answer);
                assert_int_equal(pthread_join(thread, NULL), 0);
        }
        baton_client_interrupt(f.client);
        assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_echo(f.connection, "goes on");
        free(delay.data);
        tear_down(&f);
}

static void wait_within(const struct baton_answer *answer, void *userdata) {
        struct baton_call_parameters call = call_of("echo.Echo/Unary", "", 0);
        struct baton_answer *inner;
        Fixture *f = userdata;

        (void) answer;
        assert_int_equal(baton_connection_call_wait(f->connection, &call, &inner), -EBUSY);
        assert_int_equal(baton_client_stop(f->client, f->started.name, 0, NULL), -EBUSY);
        assert_int_equal(baton_client_dispatch(f->client, 0), -EBUSY);
        f->started.pid = 0;
}

static void test_waiting_in_a_handler(void **state) {
        struct baton_call_parameters call = call_of("echo.Echo/Unary", "", 0);
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(baton_connection_call(f.connection, &call, wait_within, &f, NULL), 0);
        while (f.started.pid)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_echo(f.connection, "still up");
        tear_down(&f);
}

/* ---- in somebody else's loop ---- */

typedef struct Foreign {
        unsigned step;
        char name[64];
        struct baton_connection *connection;
} Foreign;

static void foreign_stopped(struct baton_client *client, int result, const struct baton_stopped *stopped,
                            void *userdata) {
        Foreign *foreign = userdata;

        (void) client;
        assert_int_equal(result, 0);
        assert_int_equal(stopped->exit.how, BATON_EXIT_EXITED);
        foreign->step++;
}

static void foreign_answered(const struct baton_answer *answer, void *userdata) {
        Foreign *foreign = userdata;

        assert_int_equal(answer->status, BATON_OK);
        foreign->step++;
}

static void foreign_attached(struct baton_client *client, int result, struct baton_connection *connection,
                             void *userdata) {
        struct baton_call_parameters call = call_of("echo.Echo/Unary", "foreign", 7);
        Foreign *foreign = userdata;

        (void) client;
        assert_int_equal(result, 0);
        foreign->connection = connection;
        assert_int_equal(baton_connection_call(connection, &call, foreign_answered, foreign, NULL), 0);
        foreign->step++;
}

static void foreign_started(struct baton_client *client, int result, const struct baton_started *started,
                            void *userdata) {
        Foreign *foreign = userdata;

        assert_int_equal(result, 0);
        (void) snprintf(foreign->name, sizeof(foreign->name), "%s", started->name);
        assert_int_equal(baton_client_begin_attach(client, started->name, 0, foreign_attached, foreign), 0);
        foreign->step++;
}

static void foreign_refused(struct baton_client *client, int result, struct baton_connection *connection,
                            void *userdata) {
        Foreign *foreign = userdata;

        assert_int_equal(result, BATON_NOT_FOUND);
        assert_null(connection);
        assert_non_null(strstr(baton_client_failure(client)->message, "nobody"));
        foreign->step++;
}

static void run_foreign(struct baton_client *client, const Foreign *foreign, unsigned step) {
        while (foreign->step < step) {
                struct pollfd p = { .fd = baton_client_fd(client), .events = POLLIN };

                assert_int_equal(poll(&p, 1, 10000), 1);
                assert_int_equal(baton_client_dispatch(client, 0), 0);
        }
}

static void test_foreign_loop(void **state) {
        struct baton_start_parameters parameters = start_parameters();
        struct baton_client *client;
        Foreign foreign = { 0 };

        (void) state;
        assert_int_equal(baton_client_new_private(&client, NULL), 0);
        assert_int_equal(baton_client_begin_start(client, &parameters, foreign_started, &foreign), 0);
        run_foreign(client, &foreign, 3);
        assert_int_equal(baton_client_begin_attach(client, "nobody", 0, foreign_refused, &foreign), 0);
        run_foreign(client, &foreign, 4);
        assert_int_equal(baton_client_begin_stop(client, foreign.name, 0, foreign_stopped, &foreign), 0);
        run_foreign(client, &foreign, 5);
        baton_client_free(client);
}

/* What was begun and never ended is forgotten. */
static void test_freed_in_the_middle(void **state) {
        struct baton_start_parameters parameters = start_parameters();
        struct baton_client *client;
        Foreign foreign = { 0 };

        (void) state;
        assert_int_equal(baton_client_new_private(&client, NULL), 0);
        assert_int_equal(baton_client_begin_start(client, &parameters, foreign_started, &foreign), 0);
        assert_int_equal(baton_client_begin_attach(client, "x", 0, foreign_refused, &foreign), 0);
        baton_client_free(client);
        assert_int_equal(foreign.step, 0);
}

/* ---- called by the runner ---- */

static void served(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        assert_non_null(baton_call_connection(call));
        ++*(unsigned *) userdata;
        (void) baton_call_answer(call, "served", data, size);
}

typedef struct Heard {
        Status status;
        uint8_t data[256];
        size_t size;
} Heard;

static void heard(Call *call, const Answer *answer, void *userdata) {
        Heard *h = userdata;

        (void) call;
        h->status = answer->status;
        h->size = MIN(answer->size, sizeof(h->data));
        if (h->size > 0)
                memcpy(h->data, answer->payload, h->size);
}

/* A runner at the other end of a lane is played here, by an engine peer in the same loop. */
static Peer *play_runner(Fixture *f) {
        static const PeerHandler none = { 0 };
        const PeerConfig config = { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_SELF };
        struct baton_connection *connection;
        int lane[2];
        Peer *peer;

        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        assert_int_equal(attached_new(f->client, lane[0], &connection), 0);
        assert_int_equal(endpoint_add_peer(f->client->endpoint, &config, lane[1], &none, NULL, &peer), 0);
        return peer;
}

/* runner_asks() - the client, and waits for what it answers. */
static Heard runner_asks(Fixture *f, Peer *peer, const char *method, const char *data, size_t size) {
        const CallParameters call = { .method = method, .payload = (const uint8_t *) data, .size = size };
        Heard h = { .status = _STATUS_N };

        assert_int_equal(call_start(peer, &call, heard, &h, NULL), 0);
        while (h.status == _STATUS_N)
                assert_int_equal(baton_client_dispatch(f->client, -1), 0);
        return h;
}

static void test_served(void **state) {
        static const struct {
                const char *method;
                bool fallback;
                Status status;
        } rows[] = {
                { "mine", false, STATUS_OK },
                { "yours", false, STATUS_UNIMPLEMENTED },
                { "yours", true, STATUS_OK },
                { "baton.Runner/Ping", true, STATUS_OK },
                { "baton.Runner/Stop", true, STATUS_UNIMPLEMENTED },
        };
        unsigned n_served = 0;
        Peer *peer;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(baton_client_add_method(f.client, "mine", served, &n_served), 0);
        assert_int_equal(baton_client_add_method(f.client, "mine", served, &n_served), -EEXIST);
        assert_int_equal(baton_client_add_method(f.client, "baton.Mine", served, &n_served), -EPERM);
        assert_int_equal(baton_client_add_method(f.client, "", served, &n_served), -EINVAL);
        peer = play_runner(&f);
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                baton_client_set_default(f.client, rows[i].fallback ? served : NULL, &n_served);
                assert_int_equal(runner_asks(&f, peer, rows[i].method, NULL, 0).status, rows[i].status);
        }
        assert_int_equal(n_served, 2);
        (void) peer_free(peer);
        tear_down(&f);
}

static void assert_health(Fixture *f, Peer *peer, const char *service, unsigned expected) {
        char request[64] = { 0x0a, (char) strlen(service) };
        Heard h;

        memcpy(request + 2, service, strlen(service));
        h = runner_asks(f, peer, "baton.Health/Check", request, strlen(service) + 2);
        assert_int_equal(h.status, STATUS_OK);
        assert_int_equal(h.size, 2);
        assert_int_equal(h.data[1], expected); /* HealthResponse.status */
}

/* What a client tells of itself. */
static void test_inspected(void **state) {
        enum { SERVING = 1, NOT_SERVING = 2 };
        unsigned n_served = 0;
        Fixture f;
        Peer *peer;
        Heard h;

        (void) state;
        set_up(&f);
        peer = play_runner(&f);
        h = runner_asks(&f, peer, "baton.Reflection/List", NULL, 0);
        assert_int_equal(h.status, STATUS_OK);
        assert_int_equal(h.size, 0);
        assert_int_equal(runner_asks(&f, peer, "baton.Health/Check", "\x0a\x04Mine", 6).status, STATUS_NOT_FOUND);
        assert_int_equal(runner_asks(&f, peer, "baton.Health/Check", "\xff", 1).status, STATUS_INVALID_ARGUMENT);
        assert_int_equal(baton_client_add_method(f.client, "Mine/Do", served, &n_served), 0);
        assert_int_equal(baton_client_describe_method(f.client, "Yours/Do", "", "", 0), -ENOENT);
        assert_int_equal(baton_client_describe_method(f.client, "Mine/Do", "\xff", "", 0), -EINVAL);
        assert_int_equal(baton_client_describe_method(f.client, "Mine/Do", "", "", 64), -EINVAL);
        assert_int_equal(
                baton_client_describe_method(f.client, "Mine/Do", "my.Request", NULL, BATON_METHOD_CLIENT_STREAMS), 0);
        h = runner_asks(&f, peer, "baton.Reflection/List", NULL, 0);
        assert_int_equal(h.size, 27);
        assert_memory_equal(h.data, "\x0a\x19\x0a\x07Mine/Do\x10\x01\x1a\x0amy.Request\x28\x01", 27);
        assert_health(&f, peer, "", SERVING);
        assert_health(&f, peer, "Mine", SERVING);
        assert_int_equal(baton_client_set_health(f.client, "\xff", 0), -EINVAL);
        assert_int_equal(baton_client_set_health(f.client, NULL, 0), 0);
        assert_int_equal(baton_client_set_health(f.client, "Other", 1), 0);
        assert_health(&f, peer, "", NOT_SERVING);
        assert_health(&f, peer, "Mine", NOT_SERVING);
        assert_health(&f, peer, "Other", SERVING);
        assert_int_equal(n_served, 0);
        (void) peer_free(peer);
        tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_plain_use),
        TEST(test_answers_are_copies),
        TEST(test_refusals),
        TEST(test_plain_program_and_its_log),
        TEST(test_options),
        TEST(test_stream),
        TEST(test_stream_of_a_runner_that_dies),
        TEST(test_many_at_once),
        TEST(test_quota),
        TEST_SLOW(test_attached_and_closed, 60),
        TEST(test_supervisor_sleeps),
        TEST(test_client_is_killed),
        TEST(test_runner_is_killed),
        TEST(test_supervisor_is_killed),
        TEST(test_thread_that_started_it_ends),
        TEST(test_interrupted),
        TEST(test_waiting_in_a_handler),
        TEST(test_foreign_loop),
        TEST(test_freed_in_the_middle),
        TEST(test_served),
        TEST(test_inspected),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
