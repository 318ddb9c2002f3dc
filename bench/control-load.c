/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Control load: one client of a supervisor. It asks for the state of one runner, which the supervisor answers itself, or calls
 * it by way of the supervisor, one after the other, a tenth of a millisecond between an answer and the next, until SIGTERM:
 *
 *     control-load SOCKET status|call NAME
 *
 * Then it prints a line for each: when it began, by the monotonic clock, and how long it took, in ns. One that fails is said on
 * standard error, ends it, and makes its exit code 1.
 */

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/connect.h"
#include "client/control.h"

#define PAUSE_NS 100000

typedef struct Taken {
        uint64_t begun_ns, ns;
} Taken;

typedef struct Load {
        Control control;
        char *name;
        bool calls; /* else it asks for the state */
        Taken *taken;
        size_t n, n_max;
} Load;

static volatile sig_atomic_t is_over;

static void on_signal(int number) {
        (void) number;
        is_over = 1;
}

static uint64_t now_ns(void) {
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000000 + (uint64_t) now.tv_nsec;
}

static void begin(Load *load, ControlCall *call) {
        CallParameters parameters = { .method = "echo.Echo/Unary", .payload = (const uint8_t *) "x", .size = 1 };
        Baton__Control__StatusRequest request = BATON__CONTROL__STATUS_REQUEST__INIT;

        request.names = &load->name;
        request.n_names = 1;
        if (load->calls)
                control_begin_supervised(&load->control, call, load->name, &parameters);
        else
                control_begin(&load->control, call, "Status", &request.base, 0);
}

/* ask() - once. False, after its words: it has failed. */
static bool ask(Load *load) {
        uint64_t begun_ns = now_ns();
        ControlCall call;
        int r;

        begin(load, &call);
        r = control_wait(&load->control, &call);
        load->taken[load->n++] = (Taken){ begun_ns, now_ns() - begun_ns };
        if (r < 0 || call.failure.status != STATUS_OK)
                (void) fprintf(stderr, "control-load: %s: %s\n", load->name,
                               r < 0                  ? strerror(-r)
                               : call.failure.message ? call.failure.message
                                                      : status_name(call.failure.status));
        r = r < 0 ? r : (int) call.failure.status;
        control_call_deinit(&call);
        return r == STATUS_OK;
}

static bool has_room(Load *load) {
        size_t n_max = load->n_max > 0 ? 2 * load->n_max : 4096;
        Taken *taken;

        if (load->n < load->n_max)
                return true;
        taken = reallocarray(load->taken, n_max, sizeof(*taken));
        if (!taken)
                return false;
        load->taken = taken;
        load->n_max = n_max;
        return true;
}

static int connect_to(Load *load, const char *path) {
        const PeerConfig config = {
                .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .software = "control-load"
        };
        Endpoint *endpoint;
        Peer *peer;
        int fd, r = connect_supervisor(path, &fd, NULL);

        if (r == 0)
                r = endpoint_new(&endpoint);
        if (r < 0)
                return r;
        control_init(&load->control, endpoint);
        r = endpoint_add_peer(endpoint, &config, fd, &control_handler, &load->control, &peer);
        if (r == 0)
                control_attach(&load->control, peer);
        while (r == 0 && !load->control.ready && !load->control.ended)
                r = endpoint_dispatch(endpoint, -1);
        return r == 0 && load->control.ended ? -ECONNRESET : r;
}

int main(int argc, char **argv) {
        const struct timespec pause = { .tv_nsec = PAUSE_NS };
        const struct sigaction action = { .sa_handler = on_signal };
        Load load = { .name = argv[argc > 3 ? 3 : 0] };
        bool fine = true;
        int r;

        if (argc != 4 || (strcmp(argv[2], "status") != 0 && strcmp(argv[2], "call") != 0)) {
                (void) fprintf(stderr, "Usage: control-load SOCKET status|call NAME\n");
                return 2;
        }
        load.calls = strcmp(argv[2], "call") == 0;
        (void) sigaction(SIGTERM, &action, NULL);
        r = connect_to(&load, argv[1]);
        if (r < 0) {
                (void) fprintf(stderr, "control-load: %s: %s\n", argv[1], strerror(-r));
                return EXIT_FAILURE;
        }
        while (!is_over && fine && has_room(&load)) {
                fine = ask(&load);
                (void) nanosleep(&pause, NULL);
        }
        for (size_t i = 0; i < load.n; i++)
                (void) printf("%" PRIu64 " %" PRIu64 "\n", load.taken[i].begun_ns, load.taken[i].ns);
        return fine && is_over ? EXIT_SUCCESS : EXIT_FAILURE;
}
