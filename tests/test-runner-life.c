/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner's life: bootstrap, stop and exit, renewal, the reserved channels, and the ways baton_runner_run() ends. Where
 * the runner must wait by itself it runs in a child.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/fd.h"
#include "tests/runner-fixture.h"
#include "tests/seam.h"

static void echo(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);

        (void) userdata;
        (void) baton_call_answer(call, "", data, size);
}

static void keep(struct baton_call *call, void *userdata) {
        *(struct baton_call **) userdata = call;
}

static bool is_kept(void *call) {
        return *(struct baton_call **) call;
}

/* ---- bootstrap ---- */

/* capture() - what @function writes to standard error, at most @size - 1 bytes. */
static int capture(int (*function)(void *), void *argument, char *text, size_t size) {
        int fds[2], saved = fd_dup(STDERR_FILENO), r;
        ssize_t n;

        assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
        assert_int_equal(dup2(fds[1], STDERR_FILENO), STDERR_FILENO);
        fds[1] = fd_close(fds[1]);
        r = function(argument);
        assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
        fd_close(saved);
        n = read(fds[0], text, size - 1);
        assert_true(n >= 0);
        text[n] = '\0';
        fd_close(fds[0]);
        return r;
}

static int new_runner(void *options) {
        struct baton_runner *runner;
        int r = baton_runner_new(&runner, options);

        baton_runner_free(runner);
        return r;
}

static void test_not_started_by_baton(void **state) {
        char text[512];

        (void) state;
        assert_int_equal(unsetenv("BATON_BOOTSTRAP"), 0);
        assert_int_equal(capture(new_runner, NULL, text, sizeof(text)), -ENOKEY);
        assert_non_null(strstr(text,
                               "test-runner-life: not started by baton: BATON_BOOTSTRAP is not set; start it with: "
                               "baton call --exec "));
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        assert_int_equal(setenv("BATON_BOOTSTRAP", "", 1), 0);
        assert_int_equal(capture(new_runner, NULL, text, sizeof(text)), -ENOKEY);
        assert_int_equal(setenv("BATON_BOOTSTRAP", "/nonexistent/bootstrap", 1), 0);
        assert_int_equal(capture(new_runner, NULL, text, sizeof(text)), -ENOENT);
        assert_non_null(strstr(text, "cannot connect to the supervisor at /nonexistent/bootstrap: No such file"));
        assert_non_null(getenv("BATON_BOOTSTRAP"));
        assert_int_equal(unsetenv("BATON_BOOTSTRAP"), 0);
}

static void test_options(void **state) {
        struct baton_runner_options options = { .size = 0 };

        (void) state;
        assert_int_equal(new_runner(&options), -EINVAL);
        options.size = sizeof(options);
        options.max_frame = 1000;
        assert_int_equal(new_runner(&options), -EINVAL);
        options.max_frame = UINT64_C(1) << 32;
        assert_int_equal(new_runner(&options), -EINVAL);
        options.max_frame = 0;
        options.software = "\xff";
        assert_int_equal(new_runner(&options), -EINVAL);
}

/* The variable is used up: a child of the runner's was not started by baton. */
static void test_variable(void **state) {
        Fixture f = { .listener = -1 };

        (void) state;
        fixture_listen(&f);
        assert_int_equal(setenv("BATON_BOOTSTRAP", f.path, 1), 0);
        assert_int_equal(baton_runner_new(&f.runner, NULL), 0);
        assert_null(getenv("BATON_BOOTSTRAP"));
        baton_runner_free(f.runner);
        fixture_unlisten(&f);
}

/* Out of descriptors or memory, before and after the connection was made: who started it sees why, in one line. */
static void test_no_room(void **state) {
        static const struct {
                SeamCall call;
                int error;
                const char *step;
        } rows[] = {
                { SEAM_SOCKET, EMFILE, "cannot connect to the supervisor at " },
                { SEAM_CALLOC, ENOMEM, "cannot set up the connection to the supervisor: " },
                { SEAM_EPOLL_CREATE1, EMFILE, "cannot set up the connection to the supervisor: " },
                { SEAM_EPOLL_CTL, ENOSPC, "cannot set up the connection to the supervisor: " },
        };
        struct baton_runner_options options = { .size = sizeof(options) };
        Fixture f = { .listener = -1 };
        char text[1024];

        (void) state;
        fixture_listen(&f);
        options.bootstrap = f.path;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                seam_fail(rows[i].call, 1, rows[i].error);
                assert_int_equal(capture(new_runner, &options, text, sizeof(text)), -rows[i].error);
                seam_reset();
                assert_non_null(strstr(text, rows[i].step));
                assert_non_null(strstr(text, strerror(rows[i].error)));
                assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        }
        fixture_unlisten(&f);
}

static void test_long_path(void **state) {
        struct baton_runner_options options = { .size = sizeof(options) };
        Fixture f = { .listener = -1 };
        char long_dir[500], long_path[600], name[300], text[1024];

        (void) state;
        fixture_listen(&f);
        memset(name, 'd', 200);
        name[200] = '\0';
        (void) snprintf(long_dir, sizeof(long_dir), "%s/%s", f.dir, name);
        (void) snprintf(long_path, sizeof(long_path), "%s/bootstrap", long_dir);
        assert_int_equal(mkdir(long_dir, 0700), 0);
        assert_int_equal(rename(f.path, long_path), 0);
        options.bootstrap = long_path;
        assert_int_equal(baton_runner_new(&f.runner, &options), 0);
        fixture_accept(&f);
        baton_runner_free(f.runner);
        peer_free(f.peer);
        endpoint_free(f.endpoint);
        assert_int_equal(rename(long_path, f.path), 0);
        assert_int_equal(rmdir(long_dir), 0);

        /* Only the directory can be reached around: the name itself, and a name alone, cannot. */
        options.bootstrap = name;
        assert_int_equal(capture(new_runner, &options, text, sizeof(text)), -ENAMETOOLONG);
        (void) snprintf(long_path, sizeof(long_path), "%s/%s", f.dir, name);
        assert_int_equal(capture(new_runner, &options, text, sizeof(text)), -ENAMETOOLONG);
        fixture_unlisten(&f);
}

static void test_new_fails(void **state) {
        static const struct {
                SeamCall call;
                int error;
        } failures[] = {
                { SEAM_SOCKET, EMFILE },         { SEAM_CONNECT, ECONNREFUSED }, { SEAM_EPOLL_CREATE1, EMFILE },
                { SEAM_TIMERFD_CREATE, EMFILE }, { SEAM_EVENTFD, EMFILE },       { SEAM_CALLOC, ENOMEM },
        };
        struct baton_runner_options options = { .size = sizeof(options) };
        Fixture f = { .listener = -1 };
        char text[512];

        (void) state;
        fixture_listen(&f);
        options.bootstrap = f.path;
        for (size_t i = 0; i < ARRAY_SIZE(failures); i++) {
                int n_fds = fd_count(), r;
                unsigned n = 0;

                do {
                        seam_fail(failures[i].call, ++n, failures[i].error);
                        r = capture(new_runner, &options, text, sizeof(text));
                        seam_pass(failures[i].call);
                        assert_true(r == 0 || r == -failures[i].error);
                        assert_int_equal(fd_count(), n_fds);
                } while (r < 0);
                assert_true(n > 1);
        }
        fixture_unlisten(&f);
}

/* ---- stop and exit ---- */

static void start_event(Fixture *f, const char *method, uint8_t event, Result *result) {
        uint8_t payload[] = { 0x08, event };

        (void) fixture_call(f, &(CallParameters){ .method = method, .payload = payload, .size = event ? 2 : 0 },
                            result);
}

static void ask_event(Fixture *f, const char *method, uint8_t event, Result *result) {
        start_event(f, method, event, result);
        fixture_until(f, result_is_done, result);
}

/* check_state() - what an event was answered: LifecycleState{state, event}. */
static void check_state(const Result *result, uint8_t service_state, uint8_t event) {
        const uint8_t expected[] = { 0x08, service_state, 0x10, event };

        assert_int_equal(result->status, STATUS_OK);
        assert_string_equal(result->type, "baton.LifecycleState");
        assert_int_equal(result->size, event ? 4 : 2);
        assert_memory_equal(result->data, expected, result->size);
}

static bool has_ended(void *argument) {
        return ((Fixture *) argument)->r != 0;
}

static void test_stop_and_exit(void **state) {
        struct baton_call *kept = NULL;
        Fixture f;
        Result call, stop, other;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &kept);
        ask_event(&f, "baton.Runner/Exit", 4, &other);
        assert_int_equal(other.status, STATUS_FAILED_PRECONDITION);
        assert_string_equal(other.message, "Exit is refused in state RUNNING");
        (void) fixture_call(&f, &(CallParameters){ .method = "Keep" }, &call);
        fixture_until(&f, is_kept, &kept);

        /* While the open call drains: no new ones, no second event, the same one waits again. */
        start_event(&f, "baton.Runner/Stop", 5, &stop);
        fixture_ask(&f, "Keep", NULL, &other);
        assert_int_equal(other.status, STATUS_UNAVAILABLE);
        ask_event(&f, "baton.Runner/Exit", 6, &other);
        assert_string_equal(other.message, "Exit is refused: Stop is under way in state RUNNING");
        ask_event(&f, "baton.Runner/Ping", 1, &other);
        assert_int_equal(other.status, STATUS_OK);
        assert_false(stop.done);
        start_event(&f, "baton.Runner/Stop", 5, &other);
        fixture_until(&f, result_is_done, &stop);
        assert_int_equal(stop.status, STATUS_ABORTED);
        assert_false(other.done);
        assert_int_equal(baton_call_answer(kept, "", "late", 4), 0);
        fixture_until(&f, result_is_done, &other);
        assert_true(call.done);
        assert_string_equal(call.data, "late");
        check_state(&other, 3, 5);

        /* READY: repeated, then the end. */
        ask_event(&f, "baton.Runner/Stop", 5, &other);
        check_state(&other, 3, 5);
        start_event(&f, "baton.Runner/Exit", 7, &other);
        fixture_until(&f, has_ended, &f);
        assert_int_equal(f.r, 1);
        assert_string_equal(baton_runner_reason(f.runner), "stopped");
        assert_int_equal(baton_runner_dispatch(f.runner, 0), 1);
        fixture_until(&f, result_is_done, &other);
        check_state(&other, 4, 7);
        assert_int_equal(baton_runner_run(f.runner), 0);
        fixture_close(&f);
}

static void test_stop_twice(void **state) {
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        ask_event(&f, "baton.Runner/Stop", 0, &result);
        check_state(&result, 3, 0);
        ask_event(&f, "baton.Runner/Stop", 0, &result);
        check_state(&result, 4, 0);
        fixture_until(&f, has_ended, &f);
        assert_int_equal(f.r, 1);
        fixture_close(&f);
}

/* ---- how run() ends ---- */

static void quit_later(int number);
static struct baton_runner *child_runner;

static int run_child(void *argument) {
        struct baton_runner_options options = { .size = sizeof(options), .bootstrap = argument };
        int r = baton_runner_new(&child_runner, &options);

        if (r < 0)
                return 100;
        (void) signal(SIGUSR1, quit_later);
        r = baton_runner_add_method(child_runner, "Echo", echo, NULL);
        if (r == 0)
                r = baton_runner_run(child_runner);
        baton_runner_free(child_runner);
        return -r;
}

static void quit_later(int number) {
        (void) number;
        baton_runner_quit(child_runner);
}

static bool fixture_has_ended(void *argument) {
        return ((Fixture *) argument)->ended;
}

/* open_child() - a runner in a child that has answered a call. */
static pid_t open_child(Fixture *f) {
        Result result;
        pid_t pid;

        *f = (Fixture){ .listener = -1 };
        fixture_listen(f);
        pid = test_child(run_child, f->path);
        fixture_accept(f);
        fixture_unlisten(f);
        fixture_ask(f, "Echo", "hello", &result);
        assert_string_equal(result.data, "hello");
        return pid;
}

static void test_run_until_lane_ends(void **state) {
        Fixture f;
        pid_t pid;

        (void) state;
        pid = open_child(&f);
        fixture_close(&f);
        assert_int_equal(test_child_wait(pid), 0);
}

static void test_run_until_exit(void **state) {
        Fixture f;
        Result result;
        pid_t pid;

        (void) state;
        pid = open_child(&f);
        ask_event(&f, "baton.Runner/Stop", 1, &result);
        check_state(&result, 3, 1);
        ask_event(&f, "baton.Runner/Exit", 2, &result);
        check_state(&result, 4, 2);
        fixture_until(&f, fixture_has_ended, &f);
        assert_int_equal(f.end_status, STATUS_OK);
        assert_int_equal(test_child_wait(pid), 0);
        fixture_close(&f);
}

static void test_run_until_quit(void **state) {
        Fixture f;
        pid_t pid;

        (void) state;
        pid = open_child(&f);
        assert_int_equal(kill(pid, SIGUSR1), 0);
        fixture_until(&f, fixture_has_ended, &f);
        assert_int_equal(f.end_status, STATUS_OK);
        assert_string_equal(f.end_reason, "the runner has quit");
        assert_int_equal(test_child_wait(pid), 0);
        fixture_close(&f);
}

static void test_run_until_close(void **state) {
        Fixture f;
        pid_t pid;

        (void) state;
        pid = open_child(&f);
        peer_close(f.peer, STATUS_FAILED_PRECONDITION, "not that version");
        assert_int_equal(test_child_wait(pid), EPROTONOSUPPORT);
        fixture_close(&f);
        pid = open_child(&f);
        peer_close(f.peer, STATUS_OK, "done");
        assert_int_equal(test_child_wait(pid), 0);
        fixture_close(&f);
}

static void answer_and_quit(struct baton_call *call, void *userdata) {
        static uint8_t much[6 * 1024 * 1024];

        baton_runner_quit(userdata);
        assert_int_equal(baton_call_answer(call, "", much, sizeof(much)), 0);
}

/* What was answered is written whole before the connection goes, however many turns that takes. */
static void test_answer_at_quit(void **state) {
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Last", answer_and_quit, f.runner);
        fixture_ask(&f, "Last", NULL, &result);
        assert_int_equal(result.status, STATUS_OK);
        assert_int_equal(result.size, 6 * 1024 * 1024);
        fixture_until(&f, fixture_has_ended, &f);
        assert_int_equal(f.end_status, STATUS_OK);
        assert_int_equal(f.r, 1);
        fixture_close(&f);
}

/* ---- renewal ---- */

static void count(struct baton_runner *runner, void *userdata) {
        (void) runner;
        (*(unsigned *) userdata)++;
}

static Status request_status;
static unsigned n_requests_done;

static void on_request_done(const struct baton_answer *answer, void *userdata) {
        (void) userdata;
        request_status = (Status) answer->status;
        n_requests_done++;
}

static bool renewed_once(void *argument) {
        return *(unsigned *) argument == 1;
}

static void test_renewal(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = "baton.Log/Write" };
        struct baton_call *kept = NULL;
        unsigned n_renewals = 0;
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Echo", echo, NULL);
        fixture_add(&f, "Keep", keep, &kept);
        baton_runner_on_renewal(f.runner, count, &n_renewals);
        (void) fixture_call(&f, &(CallParameters){ .method = "Keep" }, &result);
        fixture_until(&f, is_kept, &kept);
        f.hold_log = true;
        n_requests_done = 0;
        assert_int_equal(baton_runner_call(f.runner, &parameters, on_request_done, NULL, NULL), 0);
        assert_int_equal(peer_renew(f.peer, 3), 0);
        fixture_until(&f, renewed_once, &n_renewals);
        assert_int_equal(n_requests_done, 1);
        assert_int_equal(request_status, STATUS_UNAVAILABLE);
        assert_true(baton_call_is_cancelled(kept));
        assert_int_equal(baton_call_answer(kept, "", NULL, 0), -ECANCELED);
        assert_true(result.done);
        assert_int_equal(result.status, STATUS_UNAVAILABLE);
        fixture_ask(&f, "Echo", "again", &result);
        assert_string_equal(result.data, "again");
        assert_int_equal(f.n_renewed, 1);
        assert_int_equal(peer_remote(f.peer)->instance, FIXTURE_INSTANCE);
        fixture_close(&f);
}

/* An event that was under way when the supervisor died: its successor asks again, and the state is what it should be. */
static void test_stop_over_renewal(void **state) {
        struct baton_call *kept = NULL;
        unsigned n_renewals = 0;
        Fixture f;
        Result result;

        (void) state;
        fixture_open(&f);
        fixture_add(&f, "Keep", keep, &kept);
        baton_runner_on_renewal(f.runner, count, &n_renewals);
        (void) fixture_call(&f, &(CallParameters){ .method = "Keep" }, &(Result){ 0 });
        fixture_until(&f, is_kept, &kept);
        start_event(&f, "baton.Runner/Stop", 9, &result);
        fixture_ask(&f, "Keep", NULL, &(Result){ 0 });
        assert_int_equal(peer_renew(f.peer, 1), 0);
        fixture_until(&f, renewed_once, &n_renewals);
        assert_int_equal(result.status, STATUS_UNAVAILABLE);
        assert_int_equal(peer_remote(f.peer)->service_state, 2);
        start_event(&f, "baton.Runner/Stop", 9, &result);
        fixture_ask(&f, "baton.Runner/Ping", NULL, &(Result){ 0 });
        assert_false(result.done);
        (void) baton_call_fail(kept, BATON_ABORTED, "over");
        fixture_until(&f, result_is_done, &result);
        check_state(&result, 3, 9);
        n_renewals = 0;
        assert_int_equal(peer_renew(f.peer, 2), 0);
        fixture_until(&f, renewed_once, &n_renewals);
        fixture_ask(&f, "baton.Runner/Ping", NULL, &(Result){ 0 });
        assert_int_equal(peer_remote(f.peer)->service_state, 3);
        assert_int_equal(peer_remote(f.peer)->last_event, 9);
        fixture_close(&f);
}

/* ---- channels ---- */

static unsigned channels_seen;

static void see_channel(struct baton_runner *runner, enum baton_channel channel, void *userdata) {
        (void) runner;
        (void) userdata;
        channels_seen |= 1u << channel;
}

static bool both_seen(void *argument) {
        (void) argument;
        return channels_seen == 6;
}

static void test_channels(void **state) {
        struct baton_call_parameters parameters = { .size = sizeof(parameters), .method = "test.Echo" };
        Fixture f;
        Result result;
        int fd, other;

        (void) state;
        channels_seen = 0;
        fixture_open_with(&f, NULL);
        baton_runner_on_channel(f.runner, see_channel, NULL);
        fixture_add(&f, "Echo", echo, NULL);
        assert_int_equal(baton_runner_take_channel(f.runner, BATON_CHANNEL_DATA, &fd), -EAGAIN);
        assert_int_equal(baton_runner_take_channel(f.runner, BATON_CHANNEL_RPC, &fd), -EINVAL);
        assert_int_equal(baton_runner_take_channel(f.runner, (enum baton_channel) 3, &fd), -EINVAL);
        assert_int_equal(baton_runner_frame_channel(f.runner, BATON_CHANNEL_RPC), -EINVAL);
        fixture_until(&f, both_seen, NULL);
        assert_int_equal(baton_runner_take_channel(f.runner, BATON_CHANNEL_DATA, &fd), 0);
        assert_int_equal(baton_runner_take_channel(f.runner, BATON_CHANNEL_DATA, &other), -EEXIST);
        assert_int_equal(baton_runner_frame_channel(f.runner, BATON_CHANNEL_DATA), -EEXIST);
        assert_int_equal(baton_runner_frame_channel(f.runner, BATON_CHANNEL_FILESYSTEM), 0);
        assert_int_equal(baton_runner_take_channel(f.runner, BATON_CHANNEL_FILESYSTEM, &other), -EEXIST);
        (void) fixture_call(&f, &(CallParameters){ .method = "Echo", .channel = 1, .payload = "fs", .size = 2 },
                            &result);
        fixture_until(&f, result_is_done, &result);
        assert_string_equal(result.data, "fs");
        parameters.channel = BATON_CHANNEL_FILESYSTEM;
        n_requests_done = 0;
        assert_int_equal(baton_runner_call(f.runner, &parameters, on_request_done, NULL, NULL), 0);
        fixture_until(&f, renewed_once, &n_requests_done);
        assert_int_equal(request_status, STATUS_OK);

        /* After a renewal: the framed one by itself, the raw one to be taken anew. */
        channels_seen = 1u << BATON_CHANNEL_FILESYSTEM;
        assert_int_equal(peer_renew(f.peer, 1), 0);
        fixture_until(&f, both_seen, NULL);
        fd_close(fd);
        assert_int_equal(baton_runner_take_channel(f.runner, BATON_CHANNEL_DATA, &fd), 0);
        fd_close(fd);
        (void) fixture_call(&f, &(CallParameters){ .method = "Echo", .channel = 1, .payload = "fs", .size = 2 },
                            &result);
        fixture_until(&f, result_is_done, &result);
        assert_int_equal(result.status, STATUS_OK);
        fixture_close(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_not_started_by_baton),
        TEST(test_options),
        TEST(test_variable),
        TEST(test_no_room),
        TEST(test_long_path),
        TEST(test_new_fails),
        TEST(test_stop_and_exit),
        TEST(test_stop_twice),
        TEST(test_run_until_lane_ends),
        TEST(test_run_until_exit),
        TEST(test_run_until_quit),
        TEST(test_run_until_close),
        TEST(test_answer_at_quit),
        TEST(test_renewal),
        TEST(test_stop_over_renewal),
        TEST(test_channels),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
