/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Keep load: one client with a connection of its own to a state-runner, with so many calls of state.Counter/Keep open at any
 * time, each answered when what it has counted is kept. Runs until SIGTERM, then waits for what is open, and prints one JSON
 * object:
 *
 *     keep-load NAME OPEN
 *
 * What was acknowledged is not lost as long as no number is ever acknowledged twice: `lost' counts those that are. A call that
 * ends UNAVAILABLE may have run, and is `unavailable'; one that ends otherwise has `failed'. `ended': the connection was.
 * `gap_us' is the longest time without an answer of either kind. After SIGUSR1, and at the beginning, it says "acknowledged"
 * when so many calls were that some of them were begun after that.
 */

#include <baton/client.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct Load {
        struct baton_connection *connection;
        unsigned long open, room, acknowledged, unavailable, failed, lost;
        uint64_t highest, gap_us, last_us;
        unsigned long wanted; /* acknowledgements, until that is said; 0: nobody has asked */
        int over, ended;
        char why[256];
        uint8_t known[1 << 24]; /* how often each number was acknowledged */
} Load;

enum { LAST_US = 60000000 /* for what is open at the end */ };

static struct baton_client *client;
static volatile sig_atomic_t is_stopped, is_asked;

static void on_signal(int number) {
        if (number == SIGUSR1)
                is_asked = 1;
        else
                is_stopped = 1;
        baton_client_interrupt(client);
}

static uint64_t now_us(void) {
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

static void widen(Load *load) {
        uint64_t now = now_us();

        if (load->last_us && now - load->last_us > load->gap_us)
                load->gap_us = now - load->last_us;
        load->last_us = now;
}

static void acknowledge(Load *load, const struct baton_answer *answer) {
        char text[32] = "";
        uint64_t number;

        if (answer->size < sizeof(text))
                memcpy(text, answer->data, answer->size);
        number = strtoull(text, NULL, 10);
        load->acknowledged++;
        if (number < sizeof(load->known))
                load->lost += load->known[number]++ > 0;
        else
                load->failed++;
        if (number > load->highest)
                load->highest = number;
        if (load->wanted > 0 && --load->wanted == 0) {
                (void) printf("acknowledged\n");
                (void) fflush(stdout);
        }
}

static void on_answer(const struct baton_answer *answer, void *userdata) {
        Load *load = userdata;

        load->open--;
        widen(load);
        if (answer->status == BATON_OK) {
                acknowledge(load, answer);
        } else if (answer->status == BATON_UNAVAILABLE) {
                load->unavailable++;
        } else if (load->failed++ == 0) {
                (void) snprintf(load->why, sizeof(load->why), "%d: %s", (int) answer->status, answer->message);
        }
}

static void on_end(struct baton_connection *connection, enum baton_status status, const char *reason, void *userdata) {
        Load *load = userdata;

        (void) connection;
        (void) status;
        load->ended = load->over = 1;
        (void) snprintf(load->why, sizeof(load->why), "the connection has ended: %s", reason);
}

static void fill(Load *load) {
        struct baton_call_parameters call = { .size = sizeof(call), .method = "state.Counter/Keep" };

        while (!load->over && load->open < load->room) {
                if (baton_connection_call(load->connection, &call, on_answer, load, NULL) != 0)
                        return;
                load->open++;
        }
}

static int run(Load *load) {
        uint64_t end;
        int r = 0;

        baton_connection_on_end(load->connection, on_end, load);
        while (r == 0 && !load->over && !is_stopped) {
                if (is_asked)
                        load->wanted = 2 * load->room;
                is_asked = 0;
                fill(load);
                r = baton_client_dispatch(client, 100);
        }
        load->over = 1;
        end = now_us() + LAST_US;
        while (r == 0 && !load->ended && load->open > 0 && now_us() < end)
                r = baton_client_dispatch(client, 100);
        (void) printf("{\"acknowledged\": %lu, \"unavailable\": %lu, \"failed\": %lu, \"lost\": %lu, \"open\": %lu, "
                      "\"highest\": %llu, \"ended\": %s, \"gap_us\": %llu}\n",
                      load->acknowledged, load->unavailable, load->failed, load->lost, load->open,
                      (unsigned long long) load->highest, load->ended ? "true" : "false",
                      (unsigned long long) load->gap_us);
        if (*load->why)
                (void) fprintf(stderr, "keep-load: %s\n", load->why);
        return r;
}

int main(int argc, char **argv) {
        struct sigaction action;
        static Load load;
        int r;

        if (argc != 3) {
                (void) fprintf(stderr, "usage: keep-load NAME OPEN\n");
                return 2;
        }
        load.room = strtoul(argv[2], NULL, 10);
        r = baton_client_new_connected(&client, NULL, NULL);
        if (r != 0) {
                (void) fprintf(stderr, "keep-load: cannot connect: %s\n", strerror(-r));
                return 1;
        }
        memset(&action, 0, sizeof(action));
        action.sa_handler = on_signal;
        (void) sigaction(SIGTERM, &action, NULL);
        (void) sigaction(SIGUSR1, &action, NULL);
        is_asked = 1;
        r = baton_client_attach(client, argv[1], 0, &load.connection);
        if (r == 0)
                r = run(&load);
        else
                (void) fprintf(stderr, "keep-load: %s\n",
                               r > 0 ? baton_client_failure(client)->message : strerror(-r));
        baton_client_free(client);
        return r != 0;
}
