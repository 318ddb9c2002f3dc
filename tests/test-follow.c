/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A successor that follows the keeper's table while its predecessor changes it: what is looked at in the middle of a word of
 * the keeper's is not half of a runner, and what is not there after its END is missing.
 */

#include <fcntl.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/daemon.h"
#include "supervisor/instance-internal.h"
#include "supervisor/policy.h"
#include "supervisor/record.h"
#include "supervisor/recovery.h"
#include "supervisor/runner-internal.h"
#include "tests/supervisor-fixture.h"
#include "tests/test.h"

enum { GENERATION = 2, INSTANCE = 7 };

typedef struct Follower {
        SupervisorFixture fixture;
        Daemon *daemon;
        Runner *one;
        int outputs[2]; /* the ends that the process would have */
} Follower;

static void open_follower(Follower *f) {
        struct sockaddr address = { .sa_family = AF_UNIX }; /* by itself: a name of the kernel's choice */
        const SupervisorOptions options = { .generation = GENERATION };
        int control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        supervisor_fixture_open(&f->fixture, GENERATION, "runners: { one: { command: [sleep, 1000] } }");
        assert_int_equal(daemon_new(&f->daemon, f->fixture.supervisor, &options), 0);
        f->one = runner_find(f->fixture.supervisor, "one");
        assert_non_null(f->one);
        assert_int_equal(bind(control, &address, sizeof(address.sa_family)), 0);
        assert_int_equal(listen(control, 1), 0);
        daemon_stored(f->daemon, 0, KEEPER_FD_CONTROL, 0, control);
}

static void close_follower(Follower *f) {
        daemon_free(f->daemon);
        supervisor_fixture_close(&f->fixture);
        fd_close_all(f->outputs, ARRAY_SIZE(f->outputs));
}

/* tell_process() - that it is up; of its descriptors only the one that a process is known by. */
static void tell_process(Follower *f) {
        const Record record = { .desired = DESIRED_UP, .state = POLICY_UP, .flags = RECORD_READY };
        uint8_t bytes[KEEPER_RECORD_SIZE];
        const KeeperSlot slot = {
                .instance = INSTANCE,
                .name = "one",
                .state = KEEPER_SLOT_BORN,
                .flags = KEEPER_FLAG_STARTED,
                .pid = getpid(),
                .record = bytes,
        };

        record_pack(&record, bytes);
        daemon_slot(f->daemon, &slot, pidfd_open(getpid(), 0));
}

static void tell_output(Follower *f, unsigned i) {
        int fds[2];

        assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
        f->outputs[i] = fds[1];
        daemon_stored(f->daemon, INSTANCE, KEEPER_FD_LOG, i + 1, fds[0]);
}

static void test_in_the_middle(void **state) {
        Follower f = { .outputs = { -1, -1 } };
        char reason[RECOVERY_REASON_SIZE];

        (void) state;
        open_follower(&f);
        daemon_told(f.daemon);
        assert_int_equal(daemon_follow(f.daemon, false, reason), 0);
        tell_process(&f);
        for (unsigned i = 0; i < ARRAY_SIZE(f.outputs); i++) {
                assert_int_equal(daemon_follow(f.daemon, false, reason), 0);
                assert_null(f.one->instance);
                tell_output(&f, i);
        }
        daemon_told(f.daemon);
        assert_int_equal(daemon_follow(f.daemon, false, reason), 0);
        assert_non_null(f.one->instance);
        assert_int_equal(f.one->instance->id, INSTANCE);
        assert_int_equal(f.one->instance->pid, getpid());
        close_follower(&f);
}

static void test_missing(void **state) {
        Follower f = { .outputs = { -1, -1 } };
        char reason[RECOVERY_REASON_SIZE], expected[RECOVERY_REASON_SIZE];

        (void) state;
        open_follower(&f);
        tell_process(&f);
        tell_output(&f, 0);
        daemon_told(f.daemon);
        assert_true(daemon_follow(f.daemon, false, reason) < 0);
        (void) snprintf(expected, sizeof(expected),
                        "runner one (pid %d) cannot be taken over: something of it is missing", getpid());
        assert_string_equal(reason, expected);
        close_follower(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_in_the_middle),
        TEST(test_missing),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
