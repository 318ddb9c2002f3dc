/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A runner for tests of `baton call --stream': methods that behave as streams can, each to be seen from outside. Where a
 * test has to know that something has happened here, it is told by a FIFO, whose path is the request.
 *
 *         bidi     each item comes back, and the answer says how many they were, as payload and as metadata "items"
 *         collect  the items, one after the other, each followed by ";", and "end" for the half-close, are the answer
 *         numbers  the request, in digits, says how many items come: the numbers from 1
 *         stall    tells of its first item, and takes none
 *         early    answers at the first item, with items still to come
 *         refuse   sends three items, then ends the call with NOT_FOUND
 *         watch    tells of the first item, and when the caller has gone
 *         hang     never answers
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "baton/runner.h"
#include "common/fd.h"
#include "common/macro.h"

typedef struct Stream {
        struct baton_call *call;
        char *request; /* as text */
        unsigned long long n, wanted;
        char *collected;
} Stream;

static Stream *stream_new(struct baton_call *call, baton_item_fn on_item, baton_writable_fn on_writable) {
        Stream *s = calloc(1, sizeof(*s));
        const char *data;
        size_t size;

        if (!s)
                abort();
        data = baton_call_data(call, &size);
        s->call = call;
        s->request = strndup(data, size);
        s->collected = strdup("");
        if (on_item)
                baton_call_on_item(call, on_item, s);
        if (on_writable)
                baton_call_on_writable(call, on_writable, s);
        return s;
}

static struct baton_call *stream_free(Stream *s) {
        struct baton_call *call = s->call;

        baton_call_on_cancel(call, NULL, NULL);
        free(s->request);
        free(s->collected);
        free(s);
        return call;
}

static void on_cancel(struct baton_call *call, void *userdata) {
        (void) baton_call_fail(stream_free(userdata), BATON_CANCELLED, "cancelled");
        (void) call;
}

/* tell() - a word to whoever reads the FIFO. */
static void tell(const Stream *s, const char *word) {
        _cleanup_fd_ int fd = open(s->request, O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, word, strlen(word)) < 0)
                abort();
}

static void answer_count(Stream *s) {
        char text[32];
        int n = snprintf(text, sizeof(text), "%llu", s->n);
        struct baton_call *call = stream_free(s);

        (void) baton_call_add_metadata(call, "items", text, (size_t) n);
        (void) baton_call_answer(call, "", text, (size_t) n);
}

/* ---- bidi ---- */

static int bidi_item(const struct baton_item *item, void *userdata) {
        Stream *s = userdata;

        if (!item->end || item->size > 0) {
                if (baton_call_send(s->call, item->type, item->data, item->size) == -EAGAIN)
                        return 1;
                s->n++;
        }
        if (item->end)
                answer_count(s);
        return 0;
}

static void bidi_writable(void *userdata) {
        Stream *s = userdata;

        baton_call_resume(s->call);
}

static void bidi(struct baton_call *call, void *userdata) {
        (void) userdata;
        baton_call_on_cancel(call, on_cancel, stream_new(call, bidi_item, bidi_writable));
}

/* ---- collect ---- */

static int collect_item(const struct baton_item *item, void *userdata) {
        Stream *s = userdata;
        char *longer = NULL;

        if (asprintf(&longer, "%s%.*s%s", s->collected, (int) item->size, (const char *) item->data,
                     item->end ? "end" : ";") < 0)
                abort();
        free(s->collected);
        s->collected = longer;
        if (item->end) {
                s->collected = NULL;
                (void) baton_call_answer(stream_free(s), "", longer, strlen(longer));
                free(longer);
        }
        return 0;
}

static void collect(struct baton_call *call, void *userdata) {
        (void) userdata;
        (void) stream_new(call, collect_item, NULL);
}

/* ---- numbers ---- */

static void numbers_writable(void *userdata) {
        Stream *s = userdata;

        while (s->n < s->wanted) {
                char text[32];
                int n = snprintf(text, sizeof(text), "%llu", s->n + 1);

                if (baton_call_send(s->call, "", text, (size_t) n) == -EAGAIN)
                        return;
                s->n++;
        }
        answer_count(s);
}

static void numbers(struct baton_call *call, void *userdata) {
        Stream *s = stream_new(call, NULL, numbers_writable);

        (void) userdata;
        s->wanted = strtoull(s->request, NULL, 10);
        baton_call_on_cancel(call, on_cancel, s);
        numbers_writable(s);
}

/* ---- those that do not do what one hopes for ---- */

static int stall_item(const struct baton_item *item, void *userdata) {
        Stream *s = userdata;

        (void) item;
        if (s->n++ == 0)
                tell(s, "stalled\n");
        return 1;
}

static void stall(struct baton_call *call, void *userdata) {
        (void) userdata;
        baton_call_on_cancel(call, on_cancel, stream_new(call, stall_item, NULL));
}

static int early_item(const struct baton_item *item, void *userdata) {
        (void) item;
        (void) baton_call_answer(stream_free(userdata), "", "early", 5);
        return 0;
}

static void early(struct baton_call *call, void *userdata) {
        (void) userdata;
        (void) stream_new(call, early_item, NULL);
}

static void refuse(struct baton_call *call, void *userdata) {
        (void) userdata;
        for (int i = 0; i < 3; i++)
                (void) baton_call_send(call, "", &"abc"[i], 1);
        (void) baton_call_fail(call, BATON_NOT_FOUND, "no more");
}

static int watch_item(const struct baton_item *item, void *userdata) {
        Stream *s = userdata;

        (void) item;
        if (s->n++ == 0)
                tell(s, "begun\n");
        return 0;
}

static void watch_cancel(struct baton_call *call, void *userdata) {
        tell(userdata, "gone\n");
        on_cancel(call, userdata);
}

static void watch(struct baton_call *call, void *userdata) {
        (void) userdata;
        baton_call_on_cancel(call, watch_cancel, stream_new(call, watch_item, NULL));
}

static void hang(struct baton_call *call, void *userdata) {
        (void) userdata;
        baton_call_on_cancel(call, on_cancel, stream_new(call, NULL, NULL));
}

/* ---- the program ---- */

static const struct {
        const char *name;
        baton_method_fn function;
        const char *request_type; /* NULL: not described */
        unsigned flags;
} methods[] = {
        { "bidi", bidi, "", BATON_METHOD_CLIENT_STREAMS | BATON_METHOD_SERVER_STREAMS },
        { "collect", collect, "a.B", BATON_METHOD_CLIENT_STREAMS },
        { "numbers", numbers, "a.Count", BATON_METHOD_SERVER_STREAMS },
        { "stall", stall, NULL, 0 },
        { "early", early, NULL, 0 },
        { "refuse", refuse, NULL, 0 },
        { "watch", watch, NULL, 0 },
        { "hang", hang, "", 0 },
};

/* main() - with an argument: bytes of a sealed object that it takes. */
int main(int argc, char **argv) {
        struct baton_runner_options options = { .size = sizeof(options) };
        struct baton_runner *runner;
        int r;

        options.max_object = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
        r = baton_runner_new(&runner, &options);

        for (size_t i = 0; r == 0 && i < ARRAY_SIZE(methods); i++) {
                r = baton_runner_add_method(runner, methods[i].name, methods[i].function, NULL);
                if (r == 0 && methods[i].request_type)
                        r = baton_runner_describe_method(runner, methods[i].name, methods[i].request_type, "",
                                                         methods[i].flags);
        }
        if (r == 0)
                r = baton_runner_run(runner);
        baton_runner_free(runner);
        return r < 0;
}
