/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Call load: one client with one connection of its own to a runner that counts (examples/counter.c): calls in a closed loop,
 * without a pause between an answer and the next call, beside one long stream. It runs for a time, or until SIGTERM, then
 * waits for what is open, and prints one JSON object:
 *
 *     call-load NAME SECONDS ITEMS
 *
 * Each answer must be one more than that before, whoever gives it; another one is `wrong', and one that is not OK, or the end
 * of the connection, `failed'. The stream takes an item for each answer, so that it is open as long as the calls go on: the
 * last of its ITEMS it takes when they are over. An item that is not the next one is `disordered'; `whole': all came, and the
 * answer said so. `gap_us' is the longest time between two answers, `stream_gap_us' between two items.
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
        struct baton_request *stream;
        unsigned long calls, failed, wrong, disordered;
        uint64_t first, count, gap_us, last_us, slowest_us, begun_us;
        uint64_t items, n_items, stream_gap_us, last_item_us;
        int asking, streaming, held, whole, over, lost;
        char why[256];
} Load;

enum { LAST_US = 60000000 /* for what is open when the calls are over */ };

static struct baton_client *client;
static volatile sig_atomic_t is_stopped;

static void on_signal(int number) {
        (void) number;
        is_stopped = 1;
        baton_client_interrupt(client);
}

static uint64_t now_us(void) {
        struct timespec now;

        (void) clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t) now.tv_sec * 1000000 + (uint64_t) now.tv_nsec / 1000;
}

static void widen(uint64_t *gap, uint64_t *last) {
        uint64_t now = now_us();

        if (*last && now - *last > *gap)
                *gap = now - *last;
        *last = now;
}

static void fail(Load *load, const char *what, const char *why) {
        if (load->failed++ == 0)
                (void) snprintf(load->why, sizeof(load->why), "%s: %s", what, why);
}

/* ---- the stream ---- */

/* The last item is kept for the end: until then the stream is open. */
static int may_take(const Load *load) {
        return load->over || (load->items < load->calls && load->items + 1 < load->n_items);
}

static int on_item(const struct baton_item *item, void *userdata) {
        Load *load = userdata;
        uint64_t number = 0;

        if (item->size == 0)
                return 0; /* its end */
        load->held = !may_take(load);
        if (load->held)
                return 1;
        if (item->size == sizeof(number))
                memcpy(&number, item->data, sizeof(number));
        load->disordered += number != ++load->items;
        widen(&load->stream_gap_us, &load->last_item_us);
        return 0;
}

static void on_end_of_stream(const struct baton_answer *answer, void *userdata) {
        Load *load = userdata;
        uint64_t n = 0;

        load->streaming = 0;
        if (answer->status != BATON_OK) {
                fail(load, "the stream", answer->message);
                return;
        }
        if (answer->size == sizeof(n))
                memcpy(&n, answer->data, sizeof(n));
        load->whole = n == load->n_items && load->items == n;
}

static void begin_stream(Load *load) {
        struct baton_call_parameters call = { .size = sizeof(call), .method = "counter.Counter/Stream" };

        call.data = &load->n_items;
        call.data_size = sizeof(load->n_items);
        call.on_item = on_item;
        load->streaming = baton_connection_call(load->connection, &call, on_end_of_stream, load, &load->stream) == 0;
        if (!load->streaming)
                fail(load, "the stream", "it cannot begin");
}

static void go_on_with_stream(Load *load) {
        if (!load->streaming || !load->held || !may_take(load))
                return;
        load->held = 0;
        baton_request_resume(load->stream);
}

/* ---- the calls ---- */

static void ask(Load *load);

static void on_answer(const struct baton_answer *answer, void *userdata) {
        Load *load = userdata;
        uint64_t count = 0, took = now_us() - load->begun_us;

        load->asking = 0;
        if (answer->status != BATON_OK) {
                fail(load, "a call", answer->message);
        } else {
                if (answer->size == sizeof(count))
                        memcpy(&count, answer->data, sizeof(count));
                if (load->calls == 0)
                        load->first = count;
                else
                        load->wrong += count != load->count + 1;
                load->count = count;
                load->calls++;
                if (took > load->slowest_us)
                        load->slowest_us = took;
                widen(&load->gap_us, &load->last_us);
        }
        go_on_with_stream(load);
        if (!load->over)
                ask(load);
}

static void ask(Load *load) {
        struct baton_call_parameters call = { .size = sizeof(call), .method = "counter.Counter/Add" };

        load->begun_us = now_us();
        load->asking = baton_connection_call(load->connection, &call, on_answer, load, NULL) == 0;
        if (!load->asking)
                load->over = 1; /* the connection has ended */
}

static void on_end(struct baton_connection *connection, enum baton_status status, const char *reason, void *userdata) {
        Load *load = userdata;

        (void) connection;
        (void) status;
        load->lost = load->over = 1;
        fail(load, "the connection", reason);
}

/* ---- from start to end ---- */

static void print(const Load *load) {
        (void) printf("{\"calls\": %lu, \"failed\": %lu, \"wrong\": %lu, \"items\": %llu, \"disordered\": %lu, "
                      "\"whole\": %s, \"lost\": %s, \"gap_us\": %llu, \"slowest_us\": %llu, \"stream_gap_us\": %llu, "
                      "\"first\": %llu, \"last\": %llu}\n",
                      load->calls, load->failed, load->wrong, (unsigned long long) load->items, load->disordered,
                      load->whole ? "true" : "false", load->lost ? "true" : "false", (unsigned long long) load->gap_us,
                      (unsigned long long) load->slowest_us, (unsigned long long) load->stream_gap_us,
                      (unsigned long long) load->first, (unsigned long long) load->count);
        if (*load->why)
                (void) fprintf(stderr, "call-load: %s\n", load->why);
}

static int run(Load *load, double seconds) {
        uint64_t end = now_us() + (uint64_t) (seconds * 1e6);
        int r = 0;

        baton_connection_on_end(load->connection, on_end, load);
        begin_stream(load);
        ask(load);
        (void) printf("begun\n");
        (void) fflush(stdout);
        while (r == 0 && !load->over && !is_stopped && now_us() < end)
                r = baton_client_dispatch(client, 100);
        load->over = 1;
        go_on_with_stream(load);
        end = now_us() + LAST_US;
        while (r == 0 && !load->lost && (load->asking || load->streaming) && now_us() < end)
                r = baton_client_dispatch(client, 100);
        if (r == 0 && !load->lost && (load->asking || load->streaming))
                fail(load, load->asking ? "a call" : "the stream", "it does not end");
        print(load);
        return r;
}

int main(int argc, char **argv) {
        struct sigaction action;
        Load load;
        int r;

        if (argc != 4) {
                (void) fprintf(stderr, "usage: call-load NAME SECONDS ITEMS\n");
                return 2;
        }
        memset(&load, 0, sizeof(load));
        load.n_items = strtoull(argv[3], NULL, 10);
        r = baton_client_new_connected(&client, NULL, NULL);
        if (r != 0) {
                (void) fprintf(stderr, "call-load: cannot connect: %s\n", strerror(-r));
                return 1;
        }
        memset(&action, 0, sizeof(action));
        action.sa_handler = on_signal;
        (void) sigaction(SIGTERM, &action, NULL);
        r = baton_client_attach(client, argv[1], 0, &load.connection);
        if (r == 0)
                r = run(&load, atof(argv[2]));
        else
                (void) fprintf(stderr, "call-load: %s\n",
                               r > 0 ? baton_client_failure(client)->message : strerror(-r));
        baton_client_free(client);
        return r != 0;
}
