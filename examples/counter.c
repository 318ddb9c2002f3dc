/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner that can be upgraded, and that survives its death: it counts, and its count is its state.
 *
 *         counter.Counter/Add      one more; the answer is the count, a u64 of this machine
 *         counter.Counter/Get      the count
 *         counter.Counter/Stream   as many items as the request's u64 says, each a u64, from 1 on; the answer is how many
 *
 * With --acknowledge an Add is answered when a checkpoint holds it: what was answered is then counted whatever becomes of
 * this process. Without, a checkpoint that is made now and then loses what came after it. With --unhealthy it counts, and
 * says that it is not serving to whoever asks for its health: to see what then becomes of an upgrade to it.
 */

#include <baton/runner.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct counter {
        struct baton_runner *runner;
        uint64_t count;
        int acknowledges;
};

/* ---- the state ---- */

static int save(struct baton_save *save_state, void *userdata) {
        const struct counter *counter = userdata;

        return baton_save_write(save_state, &counter->count, sizeof(counter->count));
}

/* All or nothing: the count is touched when nothing can fail any more. */
static int restore(struct baton_restore *restore_state, void *userdata) {
        struct counter *counter = userdata;
        size_t size;
        const void *data = baton_restore_data(restore_state, &size);

        if (size != sizeof(counter->count)) {
                baton_restore_reason(restore_state, "a count has %zu bytes, not %zu", sizeof(counter->count), size);
                return -1;
        }
        memcpy(&counter->count, data, size);
        return 0;
}

/* ---- calls ---- */

static void answer(struct baton_call *call, uint64_t number) {
        baton_call_answer(call, "", &number, sizeof(number));
}

/* An Add that waits for its checkpoint. */
struct pending {
        struct baton_call *call;
        uint64_t count;
};

static void kept(struct baton_runner *runner, int result, const char *reason, void *userdata) {
        struct pending *pending = userdata;

        (void) runner;
        if (result == 0)
                answer(pending->call, pending->count);
        else
                baton_call_fail(pending->call, BATON_UNAVAILABLE, "it was counted, and may be lost: %s", reason);
        free(pending);
}

static void add(struct baton_call *call, void *userdata) {
        struct counter *counter = userdata;
        struct pending *pending;

        if (!counter->acknowledges) {
                answer(call, ++counter->count);
                return;
        }
        pending = malloc(sizeof(*pending));
        if (!pending) {
                baton_call_fail(call, BATON_RESOURCE_EXHAUSTED, "no memory; nothing was counted");
                return;
        }
        pending->call = call;
        pending->count = ++counter->count;
        if (baton_runner_checkpoint(counter->runner, kept, pending) < 0) {
                baton_call_fail(call, BATON_UNAVAILABLE, "it was counted, and may be lost");
                free(pending);
        }
}

static void get(struct baton_call *call, void *userdata) {
        const struct counter *counter = userdata;

        answer(call, counter->count);
}

/* A stream: it goes on in this process when the runner is upgraded, and its caller notices nothing. */
struct stream {
        struct baton_call *call;
        uint64_t sent, n;
};

static void go_on(void *userdata) {
        struct stream *stream = userdata;
        int r = 0;

        while (stream->sent < stream->n) {
                uint64_t next = stream->sent + 1;

                r = baton_call_send(stream->call, "", &next, sizeof(next));
                if (r < 0)
                        return; /* go_on() is called again, or cancelled() */
                stream->sent = next;
        }
        answer(stream->call, stream->sent);
        free(stream);
}

static void cancelled(struct baton_call *call, void *userdata) {
        baton_call_fail(call, BATON_CANCELLED, "cancelled");
        free(userdata);
}

static void begin_stream(struct baton_call *call, void *userdata) {
        size_t size;
        const void *data = baton_call_data(call, &size);
        struct stream *stream;

        (void) userdata;
        if (size != sizeof(stream->n)) {
                baton_call_fail(call, BATON_INVALID_ARGUMENT, "the request is a u64: how many items");
                return;
        }
        stream = calloc(1, sizeof(*stream));
        if (!stream) {
                baton_call_fail(call, BATON_RESOURCE_EXHAUSTED, "no memory");
                return;
        }
        stream->call = call;
        memcpy(&stream->n, data, size);
        baton_call_on_cancel(call, cancelled, stream);
        baton_call_on_writable(call, go_on, stream);
        go_on(stream);
}

int main(int argc, char **argv) {
        struct counter counter = { 0 };
        struct baton_service service = { .size = sizeof(service), .save = save, .restore = restore };
        int unhealthy = 0, r;

        service.description = "a counter";
        for (int i = 1; i < argc; i++) {
                counter.acknowledges |= strcmp(argv[i], "--acknowledge") == 0;
                unhealthy |= strcmp(argv[i], "--unhealthy") == 0;
        }
        r = baton_runner_new(&counter.runner, NULL);
        if (r == 0)
                r = baton_runner_set_service(counter.runner, &service, &counter);
        if (r == 0)
                r = baton_runner_add_method(counter.runner, "counter.Counter/Add", add, &counter);
        if (r == 0)
                r = baton_runner_add_method(counter.runner, "counter.Counter/Get", get, &counter);
        if (r == 0)
                r = baton_runner_add_method(counter.runner, "counter.Counter/Stream", begin_stream, &counter);
        if (r == 0 && unhealthy)
                r = baton_runner_set_health(counter.runner, NULL, 0);
        if (r == 0)
                r = baton_runner_run(counter.runner);
        baton_runner_free(counter.runner);
        return r < 0 ? 1 : 0;
}
