/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Fuzzes baton.Control: arbitrary bytes as requests of every method, by a client of every role, to a supervisor with a few
 * configured runners whose keeper answers nothing. An input is a byte for the role, then calls: a byte for the method, two
 * for the length, the payload. Whatever comes, each call ends once or is still waiting, and nothing is left behind. No
 * process is ever made: clone() fails here, as it may.
 */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "supervisor/control.h"
#include "supervisor/peer-loop.h"
#include "tests/supervisor-fixture.h"

enum { CALLS_MAX = 16 };

#define CHECK(_condition)          \
        do {                       \
                if (!(_condition)) \
                        abort();   \
        } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __wrap_clone(int (*function)(void *), void *stack, int flags, void *argument, ...);

static const char configuration[] = "runners:\n"
                                    "  web: { command: [/x, a], instances: 2, autostart: false }\n"
                                    "  store: { command: [/x], autostart: false, requires: web }\n"
                                    "  native: { command: [/x], ready: hello, autostart: false }\n";

typedef struct Fixture {
        SupervisorFixture base;
        Control *control;
        Peer *client;
        unsigned n_open;
        uint8_t answered[CALLS_MAX];
} Fixture;

int __wrap_clone(int (*function)(void *), void *stack, int flags, void *argument, ...) {
        (void) function;
        (void) stack;
        (void) flags;
        (void) argument;
        errno = EAGAIN;
        return -1;
}

/* ---- the supervisor ---- */

static void control_ended(Control *control, void *userdata) {
        Fixture *f = userdata;

        CHECK(control == f->control);
        f->control = control_free(control);
}

static void client_ended(Peer *peer, Status status, const char *reason) {
        Fixture *f = peer_userdata(peer);

        (void) status;
        (void) reason;
        f->client = peer_free(peer);
}

static const PeerHandler client_handler = { .ended = client_ended };

static void fixture_open(Fixture *f, Role role) {
        const ControlClient client = { .role = role, .ended = control_ended, .userdata = f };
        const PeerConfig config = { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .software = "fuzz" };
        PeerLoopParameters parameters = { .config = &config, .handler = &client_handler, .userdata = f };
        int lane[2];

        *f = (Fixture){ 0 };
        supervisor_fixture_open(&f->base, 1, configuration);
        CHECK(fd_socketpair(SOCK_STREAM, lane) == 0);
        CHECK(control_new(&f->control, f->base.supervisor, lane[0], &client) == 0);
        parameters.loop = f->base.supervisor->loop;
        CHECK(peer_loop_new(&f->client, &parameters, lane[1]) == 0);
}

/* ---- the calls ---- */

static void done(Call *call, const Answer *answer, void *userdata) {
        (void) call;
        (void) answer;
        CHECK(++*(uint8_t *) userdata == 1);
}

/* fixture_close() - the client goes first: its calls that wait are cancelled by that, as they always are. */
static void fixture_close(Fixture *f) {
        f->client = peer_free(f->client);
        for (unsigned i = 0; f->control && i < 100; i++)
                supervisor_fixture_turn(&f->base);
        CHECK(!f->control);
        supervisor_fixture_close(&f->base);
}

/* method_name() - of those that there are, and one that there is not. */
static const char *method_name(uint8_t number) {
        size_t n = 0;
        const char *name;

        while (control_method(n))
                n++;
        name = control_method(number % (n + 1));
        return name ? name : "Nothing";
}

static void start_call(Fixture *f, uint8_t method, const uint8_t *payload, size_t size) {
        char name[64];
        const CallParameters parameters = { .channel = CHANNEL_RPC, .method = name, .payload = payload, .size = size };
        Call *call;

        (void) snprintf(name, sizeof(name), "baton.Control/%s", method_name(method));
        (void) call_start(f->client, &parameters, done, &f->answered[f->n_open], &call);
        f->n_open++;
}

/* fill_low_fds() - what spawn() puts there for its child is not to replace what is ours. Before anything is counted. */
__attribute__((constructor)) static void fill_low_fds(void) {
        int fd;

        do {
                fd = open("/dev/null", O_RDWR | O_CLOEXEC);
                CHECK(fd >= 0);
        } while (fd < KEEPER_RESERVED_FDS);
        fd_close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Fixture f;

        if (size == 0)
                return 0;
        fixture_open(&f, (Role) (data[0] % (ROLE_ADMIN + 1)));
        data++, size--;
        while (size >= 3 && f.n_open < CALLS_MAX && f.client) {
                size_t n = MIN((size_t) data[1] << 8 | data[2], size - 3);

                start_call(&f, data[0], data + 3, n);
                data += 3 + n;
                size -= 3 + n;
        }
        supervisor_fixture_turn(&f.base);
        fixture_close(&f);
        return 0;
}
