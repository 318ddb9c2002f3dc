/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner with a state, for tests of upgrades and failovers: a number, bytes and descriptors of any number, which cross.
 *
 *         state-runner [--size BYTES] [--fds N] [--plan FILE] [--name NAME]
 *
 *         state.Counter/Add         adds the number in the request (1, if it is empty); the answer is the sum
 *         state.Counter/Keep        the same, answered when a checkpoint of it is kept
 *         state.Counter/Get         the sum
 *         state.Counter/Who         "PID NAME SIZE FDS"
 *         state.Counter/Wait        answers "PID" when the file named in the request is there; looked at ten times a second
 *
 * The plan is read at the start of each process: lines EVENT=WHAT, EVENT one of begin, mount, start, stop, unmount, exit,
 * save, restore, health, resume (a start after a stop) and WHAT one of refuse, hang, die, once, wait (makes a file named
 * as the plan, with `.at' behind it, and waits for one with `.go'); `health=no': not serving.
 */

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "baton/runner.h"
#include "common/macro.h"

enum { PLAN_MAX = 16, WAITING_MAX = 64, FDS_MAX = 4096 };

typedef struct State {
        struct baton_runner *runner;
        const char *name;
        uint64_t sum;
        size_t size, n_fds;
        uint8_t *bytes;
        int fds[FDS_MAX];
        struct {
                char event[16], what[16];
        } plan[PLAN_MAX];
        size_t n_plan;
        const char *plan_path;
        bool started; /* once */
        struct {
                struct baton_call *call;
                char *path;
        } waiting[WAITING_MAX];
} State;

static void read_plan(State *s, const char *path) {
        FILE *file = path ? fopen(path, "re") : NULL;
        char line[64];

        while (file && s->n_plan < PLAN_MAX && fgets(line, sizeof(line), file))
                s->n_plan += sscanf(line, "%15[^=]=%15s", s->plan[s->n_plan].event, s->plan[s->n_plan].what) == 2;
        if (file)
                (void) fclose(file);
}

static void wait_for_go(const State *s) {
        char path[4096];
        FILE *file;

        (void) snprintf(path, sizeof(path), "%s.at", s->plan_path);
        file = fopen(path, "we");
        if (file)
                (void) fclose(file);
        (void) snprintf(path, sizeof(path), "%s.go", s->plan_path);
        while (access(path, F_OK) < 0)
                (void) poll(NULL, 0, 5);
}

/* planned() - 0: as it should be; a negative errno: refuse; 1: never. One that is to die does. */
static int planned(State *s, const char *event) {
        for (size_t i = 0; i < s->n_plan; i++) {
                if (strcmp(s->plan[i].event, event) != 0)
                        continue;
                *s->plan[i].event = '\0';
                if (strcmp(s->plan[i].what, "die") == 0)
                        _exit(7);
                if (strcmp(s->plan[i].what, "wait") == 0) {
                        wait_for_go(s);
                        return 0;
                }
                return strcmp(s->plan[i].what, "hang") == 0 ? 1 : -EIO;
        }
        return 0;
}

static int on_event(struct baton_event *event, State *s, const char *name) {
        int r = planned(s, name);

        if (r < 0)
                baton_event_reason(event, "no %s today", name);
        return r > 0 ? BATON_EVENT_LATER : r;
}

#define EVENT(_name)                                                       \
        static int do_##_name(struct baton_event *event, void *userdata) { \
                return on_event(event, userdata, #_name);                  \
        }
EVENT(mount)
EVENT(stop)
EVENT(unmount)
EVENT(exit)

static int do_start(struct baton_event *event, void *userdata) {
        State *s = userdata;
        const char *name = s->started ? "resume" : "start";

        s->started = true;
        return on_event(event, s, name);
}

static int on_save(struct baton_save *save, void *userdata) {
        State *s = userdata;
        char name[32];
        int r = planned(s, "save");

        if (r > 0)
                (void) pause();
        if (r < 0) {
                baton_save_reason(save, "no save today");
                return r;
        }
        r = baton_save_write(save, &s->sum, sizeof(s->sum));
        if (r == 0)
                r = baton_save_write(save, s->bytes, s->size);
        for (size_t i = 0; r == 0 && i < s->n_fds; i++) {
                (void) snprintf(name, sizeof(name), "fd%zu", i);
                r = baton_save_fd(save, name, s->fds[i]);
        }
        return r;
}

static int on_restore(struct baton_restore *restore, void *userdata) {
        State *s = userdata;
        size_t size, n = baton_restore_n_fds(restore);
        const uint8_t *data = baton_restore_data(restore, &size);
        int r = planned(s, "restore");

        if (r > 0)
                (void) pause();
        if (r < 0 || size < sizeof(s->sum) || n > FDS_MAX) {
                baton_restore_reason(restore, "no restore today");
                return r < 0 ? r : -EPROTO;
        }
        (void) memcpy(&s->sum, data, sizeof(s->sum));
        s->size = size - sizeof(s->sum);
        free(s->bytes);
        s->bytes = malloc(s->size + 1);
        if (!s->bytes)
                return -ENOMEM;
        (void) memcpy(s->bytes, data + sizeof(s->sum), s->size);
        for (size_t i = 0; i < s->n_fds; i++)
                (void) close(s->fds[i]);
        for (s->n_fds = 0; s->n_fds < n; s->n_fds++)
                s->fds[s->n_fds] = baton_restore_take_fd(restore, baton_restore_fd_name(restore, s->n_fds));
        return 0;
}

/* ---- methods ---- */

static void answer_sum(struct baton_call *call, const State *s) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%" PRIu64, s->sum);

        (void) baton_call_answer(call, "", text, (size_t) n);
}

static char *request_of(struct baton_call *call) {
        size_t size;
        const char *data = baton_call_data(call, &size);

        return strndup(data, size);
}

static void add(struct baton_call *call, State *s) {
        char *text = request_of(call);

        s->sum += text && *text ? strtoull(text, NULL, 10) : 1;
        free(text);
}

static void on_add(struct baton_call *call, void *userdata) {
        add(call, userdata);
        answer_sum(call, userdata);
}

static void on_get(struct baton_call *call, void *userdata) {
        answer_sum(call, userdata);
}

typedef struct Kept {
        struct baton_call *call;
        uint64_t sum;
} Kept;

static void kept(struct baton_runner *runner, int result, const char *reason, void *userdata) {
        Kept *k = userdata;
        const State s = { .sum = k->sum };

        (void) runner;
        if (result < 0)
                (void) baton_call_fail(k->call, BATON_UNAVAILABLE, "not kept: %s", reason);
        else
                answer_sum(k->call, &s);
        free(k);
}

static void on_keep(struct baton_call *call, void *userdata) {
        State *s = userdata;
        Kept *k = malloc(sizeof(*k));
        int r;

        if (!k)
                abort();
        add(call, s);
        *k = (Kept){ call, s->sum };
        r = baton_runner_checkpoint(s->runner, kept, k);
        if (r == 0)
                return;
        free(k);
        (void) baton_call_fail(call, BATON_UNAVAILABLE, "not kept: %s", strerror(-r));
}

static void on_who(struct baton_call *call, void *userdata) {
        const State *s = userdata;
        char text[128];
        size_t n_open = 0;

        for (size_t i = 0; i < s->n_fds; i++)
                n_open += lseek(s->fds[i], 0, SEEK_END) == (off_t) (i + 1);
        (void) baton_call_answer(
                call, "", text,
                (size_t) snprintf(text, sizeof(text), "%d %s %zu %zu", getpid(), s->name, s->size, n_open));
}

static void on_wait(struct baton_call *call, void *userdata) {
        State *s = userdata;

        for (size_t i = 0; i < WAITING_MAX; i++)
                if (!s->waiting[i].call) {
                        s->waiting[i].call = call;
                        s->waiting[i].path = request_of(call);
                        return;
                }
        (void) baton_call_fail(call, BATON_RESOURCE_EXHAUSTED, "too many wait");
}

static void look(State *s) {
        char text[32];

        for (size_t i = 0; i < WAITING_MAX; i++) {
                if (!s->waiting[i].call || access(s->waiting[i].path, F_OK) < 0)
                        continue;
                (void) baton_call_answer(s->waiting[i].call, "", text,
                                         (size_t) snprintf(text, sizeof(text), "%d", getpid()));
                free(s->waiting[i].path);
                s->waiting[i].call = NULL;
        }
}

/* ---- life ---- */

static void make(State *s) {
        s->bytes = calloc(1, s->size + 1);
        for (size_t i = 0; i < s->n_fds; i++) {
                s->fds[i] = memfd_create("state", MFD_CLOEXEC);
                if (s->fds[i] < 0 || ftruncate(s->fds[i], (off_t) i + 1) < 0)
                        abort();
        }
}

static void parse(State *s, int argc, char **argv) {
        static const struct option options[] = { { "size", required_argument, NULL, 's' },
                                                 { "fds", required_argument, NULL, 'f' },
                                                 { "plan", required_argument, NULL, 'p' },
                                                 { "name", required_argument, NULL, 'n' },
                                                 { 0 } };
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                if (c == 's')
                        s->size = strtoull(optarg, NULL, 10);
                else if (c == 'f')
                        s->n_fds = MIN(strtoull(optarg, NULL, 10), (unsigned long long) FDS_MAX);
                else if (c == 'p')
                        read_plan(s, s->plan_path = optarg);
                else if (c == 'n')
                        s->name = optarg;
        }
        make(s);
}

static int set_up(State *s) {
        static const struct {
                const char *name;
                baton_method_fn function;
        } methods[] = { { "state.Counter/Add", on_add },
                        { "state.Counter/Keep", on_keep },
                        { "state.Counter/Get", on_get },
                        { "state.Counter/Who", on_who },
                        { "state.Counter/Wait", on_wait } };
        const struct baton_service service = {
                .size = sizeof(service),
                .mount = do_mount,
                .start = do_start,
                .stop = do_stop,
                .unmount = do_unmount,
                .exit = do_exit,
                .save = on_save,
                .restore = on_restore,
                .description = "{\"test\": true}",
        };
        int r = baton_runner_new(&s->runner, NULL);

        if (r == 0)
                r = baton_runner_set_service(s->runner, &service, s);
        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(methods); i++)
                r = baton_runner_add_method(s->runner, methods[i].name, methods[i].function, s);
        if (r == 0 && planned(s, "health") != 0)
                r = baton_runner_set_health(s->runner, NULL, 0);
        return r;
}

int main(int argc, char **argv) {
        static State s = { .name = "state" };
        int r;

        parse(&s, argc, argv);
        r = planned(&s, "begin");
        if (r > 0)
                (void) pause();
        if (r == 0)
                r = set_up(&s);
        while (r == 0) {
                struct pollfd fd = { .fd = baton_runner_fd(s.runner), .events = POLLIN };

                (void) poll(&fd, 1, 100);
                look(&s);
                r = baton_runner_dispatch(s.runner, 0);
        }
        baton_runner_free(s.runner);
        return r < 0;
}
