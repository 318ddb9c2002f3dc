/* SPDX-License-Identifier: Apache-2.0 */

/*
 * libbaton's client half with the built programs: private runners and connections of one's own to them. Many clients at
 * once; clients, runners and supervisors that are killed; what is open in each process after a thousand attachments; and
 * that calls over a connection do not wake the supervisor. How it is used otherwise: test-attach-use.c.
 */

#include "tests/test.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "tests/attach-fixture.h"

enum { CLIENTS = 32, CALLS = 1000 };

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
static void settle(AttachFixture *f) {
        for (unsigned i = 0; i < 2; i++)
                assert_int_equal(baton_client_signal(f->client, f->started.name, SIGCONT), 0);
}

/* until_open() - until the process has @n descriptors open; it looks between calls, which keep everybody going. */
static void until_open(AttachFixture *f, int pid, size_t n) {
        while (open_in(pid) != n)
                attach_assert_echo(f->connection, "x");
}

/* ---- plain use ---- */

static void test_plain_use(void **state) {
        struct baton_stopped stopped = { .size = sizeof(stopped) };
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        assert_string_equal(f.started.name, "baton-runner-echo.1");
        assert_true(f.started.pid > 0 && f.started.instance > 0);
        attach_assert_echo(f.connection, "hello");
        assert_string_equal(baton_client_reason(f.client), "");
        assert_string_equal(baton_client_failure(f.client)->message, "");
        assert_int_equal(baton_client_stop(f.client, f.started.name, 0, &stopped), 0);
        assert_int_equal(stopped.exit.how, BATON_EXIT_EXITED);
        assert_int_equal(stopped.exit.status, 0);
        assert_false(stopped.killed);
        attach_tear_down(&f);
}

static void test_answers_are_copies(void **state) {
        struct baton_call_parameters call = attach_call("echo.Echo/Unary", "payload", 7);
        struct baton_answer *answer;
        const void *value;
        int fds[2], fd;
        size_t size;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        call.type = "test.Type";
        call.metadata_key = "key";
        call.metadata_value = "value";
        call.metadata_size = 5;
        call.fds_consume = &fds[0];
        call.n_fds = 1;
        assert_int_equal(baton_connection_call_wait(f.connection, &call, &answer), 0);
        attach_assert_echo(f.connection, "another");
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
        attach_tear_down(&f);
}

static void test_refusals(void **state) {
        static const char *const arguments[] = { "-c", "echo last words; exit 3", NULL };
        struct baton_start_parameters parameters = { .size = sizeof(parameters), .program = "/nowhere/at/all" };
        struct baton_connection *connection = (void *) &parameters;
        const struct baton_failure *failure;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
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
        assert_string_equal(baton_client_failure(f.client)->message,
                            "parameters without their size, neither program nor name, or no function");
        assert_int_equal(baton_client_signal(f.client, f.started.name, 0), BATON_INVALID_ARGUMENT);
        assert_int_equal(baton_client_signal(f.client, f.started.name, SIGCONT), 0);
        assert_string_equal(baton_client_failure(f.client)->message, "");
        attach_tear_down(&f);
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
        AttachFixture f;

        (void) state;
        attach_start(&f, &parameters);
        while (!logs.ended)
                assert_int_equal(baton_client_logs(f.client, "plain", logs.next_seq, 1, take_logs, &logs), 0);
        assert_int_equal(logs.next_seq, 4);
        assert_int_equal(logs.dropped, 0);
        assert_int_equal(logs.exit.how, BATON_EXIT_SIGNALED);
        assert_int_equal(logs.exit.status, SIGKILL);
        assert_int_equal(baton_client_attach(f.client, "plain", 0, &connection), BATON_FAILED_PRECONDITION);
        assert_int_equal(baton_client_stop(f.client, "plain", 0, &stopped), 0);
        assert_int_equal(stopped.exit.status, SIGKILL);
        attach_tear_down(&f);
}

static void test_options(void **state) {
        struct baton_client_options options = { .size = sizeof(options), .max_frame = 100 };
        struct baton_start_parameters parameters = attach_parameters();
        struct baton_connection *connection;
        static char data[100000];
        struct baton_call_parameters call = attach_call("echo.Echo/Unary", data, sizeof(data));
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
        struct baton_call_parameters call = attach_call("echo.Echo/Unary", "many", 4);
        unsigned n = 0;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        for (unsigned i = 0; i < CLIENTS; i++)
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connections[i]), 0);
        for (unsigned i = 0; i < 100 * CLIENTS; i++)
                assert_int_equal(baton_connection_call(connections[i % CLIENTS], &call, count_answer, &n, NULL), 0);
        while (n < 100 * CLIENTS)
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        for (unsigned i = 0; i < CLIENTS; i += 2)
                baton_connection_close(connections[i]);
        for (unsigned i = 1; i < CLIENTS; i += 2)
                attach_assert_echo(connections[i], "still here");
        attach_tear_down(&f);
}

static void test_quota(void **state) {
        struct baton_start_parameters parameters = attach_parameters();
        struct baton_connection *connections[3], *refused;
        AttachFixture f;
        int r;

        (void) state;
        parameters.max_attached = 3;
        attach_start(&f, &parameters);
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
                attach_assert_echo(connections[i], "in");
        attach_tear_down(&f);
}

static void test_attached_and_closed(void **state) {
        size_t ours, runner, supervisor, keeper;
        struct baton_connection *connection;
        int supervisor_pid, keeper_pid;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        settle(&f);
        attach_assert_echo(f.connection, "x");
        supervisor_pid = supervisor_of(f.started.pid);
        keeper_pid = parent_of(f.started.pid);
        ours = (size_t) fd_count();
        runner = open_in(f.started.pid);
        supervisor = open_in(supervisor_pid);
        keeper = open_in(keeper_pid);
        for (unsigned i = 0; i < CALLS; i++) {
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connection), 0);
                if (i % 3 == 0)
                        attach_assert_echo(connection, "x");
                baton_connection_close(connection);
        }
        assert_int_equal(fd_count(), ours);
        until_open(&f, f.started.pid, runner);
        until_open(&f, supervisor_pid, supervisor);
        assert_int_equal(open_in(keeper_pid), keeper);
        attach_tear_down(&f);
}

/* Calls over a connection are no business of the supervisor's: it does not run at all. What it has to do otherwise, late
 * in a start, or once in a while, does not come in every round. */
static void test_supervisor_sleeps(void **state) {
        unsigned long before, after;
        unsigned rounds = 0;
        int supervisor;
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        settle(&f);
        supervisor = supervisor_of(f.started.pid);
        do {
                before = switches_of(supervisor);
                for (unsigned i = 0; i < CALLS; i++)
                        attach_assert_echo(f.connection, "call");
                after = switches_of(supervisor);
        } while (after != before && ++rounds < 10);
        assert_int_equal(after, before);
        attach_tear_down(&f);
}

/* ---- deaths ---- */

/* A client in a process of its own: attached by a lane it was given, with calls open that hold descriptors. */
typedef struct Victim {
        int lane, ready;
} Victim;

static int hold_until_killed(void *argument) {
        Victim *victim = argument;
        AttachNumber delay = attach_number(VALUE_U64, 3600 * USEC_PER_SEC);
        struct baton_call_parameters call = attach_call_with("echo.Echo/Sleep", delay);
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
        call = attach_call("echo.Echo/Unary", "", 0);
        if (baton_connection_call_wait(connection, &call, &answer) < 0 || write(victim->ready, "r", 1) != 1)
                return 1;
        for (;;)
                (void) baton_client_dispatch(&client, -1);
}

/* take_lane() - attaches without making a connection of it. */
static int take_lane(AttachFixture *f) {
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
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        attach_assert_echo(f.connection, "x");
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
        attach_tear_down(&f);
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
        AttachNumber delay = attach_number(VALUE_U64, 3600 * USEC_PER_SEC);
        struct baton_call_parameters call = attach_call_with("echo.Echo/Sleep", delay);
        struct baton_stopped stopped = { .size = sizeof(stopped) };
        struct baton_answer *answer;
        End ends[4] = { 0 };
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        for (unsigned i = 0; i < 4; i++) {
                assert_int_equal(baton_client_attach(f.client, f.started.name, 0, &connections[i]), 0);
                baton_connection_on_end(connections[i], on_end, &ends[i]);
                assert_int_equal(baton_connection_call(connections[i], &call, on_answer, &ends[i], NULL), 0);
                attach_assert_echo(connections[i], "x");
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
        attach_tear_down(&f);
}

static void test_supervisor_is_killed(void **state) {
        struct baton_start_parameters parameters = attach_parameters();
        AttachFixture f;

        (void) state;
        attach_set_up(&f);
        assert_int_equal(kill(supervisor_of(f.started.pid), SIGKILL), 0);
        while (!*baton_client_reason(f.client))
                assert_int_equal(baton_client_dispatch(f.client, -1), 0);
        assert_int_equal(baton_client_start(f.client, &parameters, NULL), -ESHUTDOWN);
        assert_string_equal(baton_client_failure(f.client)->message, baton_client_reason(f.client));
        attach_tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_plain_use),
        TEST(test_answers_are_copies),
        TEST(test_refusals),
        TEST(test_plain_program_and_its_log),
        TEST(test_options),
        TEST(test_many_at_once),
        TEST(test_quota),
        TEST_SLOW(test_attached_and_closed, 60),
        TEST(test_supervisor_sleeps),
        TEST(test_client_is_killed),
        TEST(test_runner_is_killed),
        TEST(test_supervisor_is_killed),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
