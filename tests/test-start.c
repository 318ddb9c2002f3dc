/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The start of a runner up to its process, with a keeper played by the test: whichever system call fails, and whatever the
 * keeper refuses, the start is told why, every descriptor goes, here and there, and the slot too. No process is made: a
 * start that meets no failure is stopped before its turn comes, or there is never a child. So it is with restarts and
 * schedules while somebody sets the clock.
 */

#include "supervisor/supervisor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/cmsg.h"
#include "common/fd.h"
#include "common/log.h"
#include "supervisor/instance-internal.h"
#include "supervisor/runner-internal.h"
#include "tests/seam.h"
#include "tests/test.h"

typedef struct Fixture {
        Supervisor *supervisor;
        int keeper;
        LoopIo io;
        KeeperType refused; /* the keeper refuses requests of this type, with: */
        int error;
        unsigned n[_KEEPER_TYPE_N]; /* messages */
        int number;                 /* of the last signal */
        int n_stored;               /* and not dropped */
        bool stop;                  /* the start is stopped at once */
        InstanceFailure failure;
        char text[INSTANCE_FAILURE_SIZE];
        unsigned n_told;
        RunnerWatcher watcher;
} Fixture;

/* ---- the keeper ---- */

static bool wants_done(unsigned type) {
        return type == KEEPER_RESERVE || type == KEEPER_PUT || type == KEEPER_DROP || type == KEEPER_SIGNAL;
}

static void keeper_ready(LoopIo *io, unsigned events) {
        Fixture *f = CONTAINER_OF(io, Fixture, io);
        KeeperMessage m, answer = { .version = KEEPER_VERSION, .type = KEEPER_DONE };
        int fds[KEEPER_FDS_MAX];
        CmsgInfo info;

        (void) events;
        while (cmsg_receive(f->keeper, &m, sizeof(m), fds, KEEPER_FDS_MAX, &info) == sizeof(m)) {
                fd_close_all(fds, info.n_fds);
                f->n[m.type]++;
                if (m.type == KEEPER_SIGNAL)
                        f->number = m.result;
                answer.serial = m.serial;
                answer.result = m.type == f->refused ? -f->error : 0;
                f->n_stored += answer.result == 0 ? (int) info.n_fds - (m.type == KEEPER_DROP) : 0;
                if (wants_done(m.type))
                        assert_int_equal(cmsg_send(f->keeper, &answer, sizeof(answer), NULL, 0), sizeof(answer));
        }
}

/* ---- one start ---- */

static void told(RunnerWatcher *watcher, Runner *runner, RunnerOutcome outcome) {
        Fixture *f = CONTAINER_OF(watcher, Fixture, watcher);

        if (outcome == RUNNER_OUTCOME_PENDING)
                return;
        runner_unwatch(watcher);
        f->n_told++;
        f->failure = runner->instance->failure;
        (void) snprintf(f->text, sizeof(f->text), "%s", instance_text(runner->instance->failure_text));
        loop_stop(f->supervisor->loop);
}

static RunnerConfig *make_config(void) {
        static const char *const command[] = { "/bin/program", NULL }, *const environment[] = { "A=1", NULL };
        RunnerConfig draft = RUNNER_CONFIG_NULL, *config;

        draft.name = "program.1";
        draft.command = command;
        draft.env = environment;
        draft.ready = CONFIG_READY_HELLO;
        draft.restart = RESTART_NEVER;
        draft.start_timeout_us = 5 * USEC_PER_SEC;
        draft.stop_timeout_us = USEC_PER_SEC;
        assert_int_equal(runner_config_new(&config, &draft), 0);
        return config;
}

/* start_one() - as transient_start(); whoever waits is told in the fixture. */
static int start_one(Fixture *f, Runner **ret_runner) {
        _cleanup_(runner_config_unrefp) RunnerConfig *config = make_config();
        int r = transient_start(f->supervisor, config, -1, ret_runner);

        f->watcher = (RunnerWatcher){ .callback = told };
        if (r == 0)
                runner_watch(*ret_runner, &f->watcher);
        return r;
}

static void set_up(Fixture *f) {
        SupervisorOptions options = { .generation = 1, .stop_timeout_us = USEC_PER_SEC, .private_fd_consume = -1 };
        int link[2];

        *f = (Fixture){ .io = LOOP_IO_NULL(keeper_ready), .stop = true };
        log_set_level(2);
        assert_int_equal(fd_socketpair(SOCK_SEQPACKET, link), 0);
        options.keeper_fd_consume = link[0];
        f->keeper = link[1];
        assert_int_equal(supervisor_new(&f->supervisor, &options), 0);
        loop_io_set(f->supervisor->loop, &f->io, f->keeper, LOOP_IN);
}

static void tear_down(Fixture *f) {
        loop_io_stop(&f->io);
        assert_null(f->supervisor->instances);
        assert_null(f->supervisor->runners);
        f->supervisor = supervisor_free(f->supervisor);
        fd_close(f->keeper);
}

/* start() - 0 when nothing failed before it was stopped, -1 when something did. */
static int start(void *argument) {
        Fixture *f = argument;
        Runner *runner;

        f->n_told = 0;
        assert_int_equal(start_one(f, &runner), 0);
        if (f->stop)
                runner_stop(runner, 0);
        while (f->n_told == 0 || f->supervisor->runners)
                loop_run(f->supervisor->loop);
        assert_int_equal(f->n_told, 1);
        assert_int_equal(f->failure, INSTANCE_FAILURE_SYSTEM);
        return strcmp(f->text, ": it was stopped before it was up") == 0 ? 0 : -1;
}

static void test_every_call(void **state) {
        static const struct {
                SeamCall call;
                int error;
                unsigned n;
        } rows[] = {
                { SEAM_PIPE2, EMFILE, 2 },      { SEAM_MKDTEMP, EACCES, 1 }, { SEAM_OPEN, EMFILE, 1 },
                { SEAM_SOCKET, EMFILE, 1 },     { SEAM_BIND, ENOMEM, 1 },    { SEAM_LISTEN, ENOBUFS, 1 },
                { SEAM_SOCKETPAIR, EMFILE, 3 }, { SEAM_FCNTL, EMFILE, 2 },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Fixture f;

                set_up(&f);
                assert_int_equal(seam_each(rows[i].call, rows[i].error, start, &f, -1), rows[i].n);
                assert_int_equal(f.n_stored, 0);
                assert_int_equal(f.n[KEEPER_RESERVE], f.n[KEEPER_CANCEL]);
                tear_down(&f);
        }
}

static void test_keeper_refuses(void **state) {
        static const struct {
                KeeperType type;
                int error;
                const char *text;
        } rows[] = {
                { KEEPER_RESERVE, ENOSPC, "at reserving a place in the keeper: No space left on device" },
                { KEEPER_RESERVE, EBUSY, "at reserving a place in the keeper: Device or resource busy" },
                { KEEPER_RESERVE, EMFILE, "at reserving a place in the keeper: Too many open files" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                LoopTask *nobody = NULL;
                Fixture f;

                set_up(&f);
                f.refused = rows[i].type;
                f.error = rows[i].error;
                f.stop = false;
                /* The process is not made meanwhile: its task seems to be queued, and is not. */
                f.supervisor->spawn.link.tqe_prev = &nobody;
                assert_int_equal(start(&f), -1);
                f.supervisor->spawn.link.tqe_prev = NULL;
                assert_string_equal(f.text, rows[i].text);
                tear_down(&f);
        }
}

static void test_names_and_stopping(void **state) {
        char name[CONFIG_NAME_MAX + 1];
        Runner *runner, *other;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_string_equal(transient_name(f.supervisor, "/bin/program", name), "program.1");
        assert_int_equal(start_one(&f, &runner), 0);
        assert_ptr_equal(runner_find(f.supervisor, "program.1"), runner);
        assert_ptr_equal(supervisor_find_instance(f.supervisor, UINT64_C(1) << 32 | 1), runner->instance);
        assert_string_equal(transient_name(f.supervisor, "program", name), "program.2");
        assert_string_equal(transient_name(f.supervisor, "/bin/", name), "runner.1");
        assert_string_equal(transient_name(f.supervisor, "/a b/c%d", name), "c_d.1");
        runner_unwatch(&f.watcher);
        assert_int_equal(start_one(&f, &other), -EEXIST);
        supervisor_stop(f.supervisor, "the test");
        assert_int_equal(start_one(&f, &other), -ESHUTDOWN);
        while (!f.supervisor->told_keeper)
                loop_run(f.supervisor->loop); /* ends by itself when SHUTDOWN is out */
        assert_null(runner_find(f.supervisor, "program.1"));
        /* A number that is free again is given again. */
        assert_string_equal(transient_name(f.supervisor, "program", name), "program.1");
        tear_down(&f);
}

static void test_valid_names(void **state) {
        char name[INSTANCE_NAME_SIZE + 1];

        (void) state;
        memset(name, 'a', sizeof(name));
        name[INSTANCE_NAME_SIZE] = '\0';
        assert_false(transient_name_is_valid(name));
        name[INSTANCE_NAME_SIZE - 1] = '\0';
        assert_true(transient_name_is_valid(name));
        for (unsigned c = 1; c < 256; c++) {
                char one[] = { (char) c, '\0' };
                bool good = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                            (c && strchr("._-@", (int) c));

                assert_int_equal(transient_name_is_valid(one), good);
        }
        assert_false(transient_name_is_valid(""));
}

/* Without its keeper a supervisor has nothing to do, and ends, whatever it was at. */
static void test_keeper_is_gone(void **state) {
        Runner *runner;
        Fixture f;

        (void) state;
        set_up(&f);
        assert_int_equal(start_one(&f, &runner), 0);
        supervisor_unqueue_spawn(f.supervisor, runner->instance);
        loop_io_stop(&f.io);
        f.keeper = fd_close(f.keeper);
        assert_int_equal(supervisor_run(f.supervisor), EXIT_FAILURE);
        f.supervisor = supervisor_free(f.supervisor);
        assert_int_equal(f.n_told, 1);
}

/* ---- processes that cannot be made, and the clock on the wall ---- */

/* set_up_spawn() - what spawn() needs, too: descriptors below KEEPER_RESERVED_FDS. No child is ever made. */
static void set_up_spawn(Fixture *f) {
        assert_int_equal(spawn_reserve(), 0);
        set_up(f);
        f->stop = false;
}

static void tear_down_spawn(Fixture *f) {
        tear_down(f);
        assert_int_equal(close_range(3, KEEPER_RESERVED_FDS - 1, 0), 0);
}

static void test_fork_fails(void **state) {
        static const struct {
                int error;
                const char *text;
        } rows[] = {
                { EAGAIN, "at clone: Resource temporarily unavailable" },
                { ENOMEM, "at clone: Cannot allocate memory" },
        };

        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Fixture f;

                set_up_spawn(&f);
                seam_fail(SEAM_CLONE, 1, rows[i].error);
                assert_int_equal(start(&f), -1);
                assert_string_equal(f.text, rows[i].text);
                assert_int_equal(f.n_stored, 0);
                assert_int_equal(f.n[KEEPER_CANCEL], 1);
                assert_int_equal(f.n[KEEPER_STARTED], 0);
                tear_down_spawn(&f);
        }
}

/* A configured plain runner, that nobody has begun. */
static Runner *new_plain(Fixture *f, const char *name, const ConfigSchedule *schedule) {
        static const char *const command[] = { "/bin/true", NULL };
        _cleanup_(runner_config_unrefp) RunnerConfig *config = NULL;
        RunnerConfig draft = RUNNER_CONFIG_NULL;
        Runner *runner;

        draft.name = name;
        draft.command = command;
        draft.schedule = schedule;
        draft.oneshot = schedule;
        draft.intensity.restarts = 0;
        draft.backoff = (PolicyBackoff){ .initial_us = USEC_PER_MSEC, .max_us = USEC_PER_MSEC, .factor_percent = 100 };
        if (schedule)
                draft.restart = RESTART_NEVER;
        assert_int_equal(runner_config_new(&config, &draft), 0);
        assert_int_equal(runner_new(&runner, f->supervisor, config, 0), 0);
        return runner;
}

/* The same, begun as by a first load. */
static Runner *begin_plain(Fixture *f, const ConfigSchedule *schedule) {
        Runner *runner = new_plain(f, "plain", schedule);

        runner_begin(runner);
        return runner;
}

static void tick(LoopTimer *timer) {
        loop_stop(timer->loop);
}

/* turn() - of the loop: until something has happened, at most a millisecond. */
static void turn(Fixture *f) {
        LoopTimer timer = LOOP_TIMER_NULL(tick);

        loop_timer_set(f->supervisor->loop, &timer, clock_after(clock_now(), USEC_PER_MSEC));
        loop_run(f->supervisor->loop);
        loop_timer_stop(&timer);
}

/* fail_until() - it has been tried @n times in all. */
static void fail_until(Fixture *f, const Runner *runner, uint32_t n, PolicyState then) {
        while (runner->n_starts < n || runner->state != then)
                turn(f);
}

#define WALL_NOON (UINT64_C(4102488000) * USEC_PER_SEC) /* 2100-01-01 12:00 UTC: no timer of the kernel's gets there */

/* The clock on the wall is only ever shown: set back by a year, it delays no restart and makes no time negative. */
static void test_clock_set_back(void **state) {
        const RunnerExit *last;
        Runner *runner;
        Fixture f;

        (void) state;
        set_up_spawn(&f);
        seam_fail_always(SEAM_CLONE, EAGAIN);
        seam_wall_set(WALL_NOON);
        runner = begin_plain(&f, NULL);
        fail_until(&f, runner, 2, POLICY_BACKOFF);
        assert_int_equal(runner_exit(runner, 0)->ended_us, WALL_NOON);
        seam_wall_set(WALL_NOON - UINT64_C(365) * 86400 * USEC_PER_SEC);
        fail_until(&f, runner, 4, POLICY_BACKOFF);
        last = runner_exit(runner, 0);
        assert_int_equal(last->ended_us, WALL_NOON - UINT64_C(365) * 86400 * USEC_PER_SEC);
        assert_true(last->uptime_us < 60 * USEC_PER_SEC);
        assert_true(runner->next_us < clock_now() + USEC_PER_SEC);
        assert_int_equal(f.n[KEEPER_STARTED], 0);
        assert_int_equal(f.n_stored, 0);
        runner_remove(runner);
        while (f.supervisor->runners)
                turn(&f);
        tear_down_spawn(&f);
}

/* fire() - the one timerfd there is. */
static void fire(void) {
        const struct itimerspec now = { .it_value = { .tv_nsec = 1 } };
        char path[64], target[64];

        for (int fd = 3; fd < 64; fd++) {
                ssize_t n;

                (void) snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
                n = readlink(path, target, sizeof(target) - 1);
                target[MAX(n, (ssize_t) 0)] = '\0';
                if (strstr(target, "[timerfd]")) {
                        assert_int_equal(timerfd_settime(fd, 0, &now, NULL), 0);
                        return;
                }
        }
        fail_msg("there is no timerfd");
}

/* `at': waits for the time, is begun at it and not before, and works it out anew when somebody sets the clock. */
static void test_at(void **state) {
        static const ConfigTime every_hour = {
                .minutes = 1 << 30,
                .hours = (1 << 24) - 1,
                .days = ~1u,
                .months = 0x1ffe,
                .weekdays = 0x7f,
                .any_day = true,
                .any_weekday = true,
        };
        static const ConfigSchedule schedule = { .n_at = 1, .at = &every_hour };
        const uint64_t half_past = WALL_NOON + 30 * 60 * USEC_PER_SEC, hour = 3600 * USEC_PER_SEC;
        Runner *runner;
        Fixture f;

        (void) state;
        assert_int_equal(setenv("TZ", "UTC", 1), 0);
        tzset();
        set_up_spawn(&f);
        seam_fail_always(SEAM_CLONE, EAGAIN);
        seam_wall_set(WALL_NOON);
        runner = begin_plain(&f, &schedule);
        fail_until(&f, runner, 0, POLICY_SCHEDULED);
        assert_int_equal(runner->next_us, half_past);

        seam_wall_set(half_past - 1); /* the kernel's timer was a bit early: nothing begins */
        fire();
        turn(&f);
        assert_int_equal(runner->n_starts, 0);

        seam_wall_set(half_past);
        fire();
        fail_until(&f, runner, 1, POLICY_SCHEDULED);
        assert_int_equal(runner->next_us, half_past + hour);

        seam_wall_set(half_past - 5 * hour - 1); /* set back by hours: the next time is soon, not in six hours */
        seam_fail(SEAM_READ, 1, ECANCELED);
        fire();
        while (runner->next_us != half_past - 5 * hour)
                turn(&f);
        assert_int_equal(runner->n_starts, 1);

        seam_wall_set(half_past + 7 * hour); /* set forward over several: one run, not one for each */
        seam_fail(SEAM_READ, 1, ECANCELED);
        fire();
        fail_until(&f, runner, 2, POLICY_SCHEDULED);
        assert_int_equal(runner->next_us, half_past + 8 * hour);
        for (int i = 0; i < 5; i++)
                turn(&f);
        assert_int_equal(runner->n_starts, 2);
        runner_remove(runner);
        while (f.supervisor->runners)
                turn(&f);
        tear_down_spawn(&f);
}

/* put_up() - as if its process ran. */
static Instance *put_up(Fixture *f, Runner *runner) {
        Instance *instance;

        assert_int_equal(instance_new(&instance, runner, supervisor_next_id(f->supervisor)), 0);
        assert_int_equal(supervisor_add_instance(f->supervisor, instance), 0);
        instance->state = PROCESS_UP;
        instance->was_up = instance->born = true;
        instance->pid = instance->last_pid = INT32_MAX; /* no process has this number */
        runner->instance = instance;
        runner->state = POLICY_UP;
        runner->desired = DESIRED_UP;
        return instance;
}

/* fill() - what can be asked of the keeper at once is asked: those that are stopped with thousands find it so. */
static void fill(Fixture *f) {
        while (keeper_link_drop(f->supervisor->link, 1, KEEPER_FD_LOG, 1, NULL, NULL) == 0)
                ;
}

/* A signal for which there is no room is sent when there is: a stop signal is not skipped for SIGKILL. */
static void test_stop_waits_for_room(void **state) {
        Instance *instance;
        Runner *runner;
        Fixture f;

        (void) state;
        set_up(&f);
        runner = new_plain(&f, "plain", NULL);
        instance = put_up(&f, runner);
        runner->desired = DESIRED_DOWN;
        fill(&f);
        instance_stop(instance, 60 * USEC_PER_SEC);
        assert_int_equal(f.n[KEEPER_SIGNAL], 0);
        while (f.n[KEEPER_SIGNAL] == 0)
                turn(&f);
        assert_int_equal(f.number, SIGTERM);
        assert_int_equal(instance->stop, INSTANCE_STOP_TERMINATED);

        fill(&f);
        instance_kill(instance);
        assert_false(instance->killed);
        while (f.n[KEEPER_SIGNAL] == 1)
                turn(&f);
        assert_int_equal(f.number, SIGKILL);
        assert_true(instance->killed);
        instance_exited(instance, (ExitStatus){ EXIT_SIGNALED, SIGKILL });
        runner_remove(runner);
        while (f.supervisor->runners)
                turn(&f);
        tear_down(&f);
}

/* What stopped runners may have left behind is looked for once for all of a moment: each look goes over all children. */
static void test_leftovers_once(void **state) {
        char names[8][16];
        Runner *runners[ARRAY_SIZE(names)];
        Fixture f;

        (void) state;
        set_up(&f);
        f.supervisor->leftovers.next_us = clock_now() + 50 * USEC_PER_MSEC; /* as after a look over thousands */
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                (void) snprintf(names[i], sizeof(names[i]), "plain-%zu", i);
                runners[i] = new_plain(&f, names[i], NULL);
                (void) put_up(&f, runners[i]);
                runners[i]->desired = DESIRED_DOWN;
                instance_exited(runners[i]->instance, (ExitStatus){ EXIT_EXITED, 0 });
        }
        assert_int_equal(f.supervisor->leftovers.n_looks, 0);
        while (f.supervisor->leftovers.n_looks == 0)
                turn(&f);
        assert_int_equal(f.supervisor->leftovers.n, 0);
        assert_true(f.supervisor->leftovers.next_us > 0);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                assert_int_equal(runners[i]->state, POLICY_DOWN);
                assert_false(runners[i]->sought);
                runner_remove(runners[i]);
        }
        while (f.supervisor->runners)
                turn(&f);
        assert_int_equal(f.supervisor->leftovers.n_looks, 1);
        tear_down(&f);
}

static const struct CMUnitTest tests[] = {
        TEST(test_every_call),          TEST(test_keeper_refuses),
        TEST(test_names_and_stopping),  TEST(test_valid_names),
        TEST(test_keeper_is_gone),      TEST(test_fork_fails),
        TEST(test_clock_set_back),      TEST(test_at),
        TEST(test_stop_waits_for_room), TEST(test_leftovers_once),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
