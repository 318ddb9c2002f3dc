/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Starts a runner of its own, attaches to it twice, calls it over one connection and streams over the other. With an argument
 * it does so with the runner of that name, which has the methods of baton-runner-echo, of a supervisor that runs.
 */
#include <baton/client.h>
#include <stdio.h>
#include <string.h>

struct stream {
        struct baton_request *request;
        int to_send, received, over;
};

static void send_more(void *userdata) {
        struct stream *stream = userdata;

        while (stream->to_send > 0 && baton_request_send(stream->request, "", "item", 4) == 0)
                stream->to_send--; /* -EAGAIN: called again when it is worth trying */
        if (stream->to_send == 0)
                baton_request_end(stream->request);
}

static int on_item(const struct baton_item *item, void *userdata) {
        ((struct stream *) userdata)->received += item->size > 0;
        return 0;
}

static void on_answer(const struct baton_answer *answer, void *userdata) {
        struct stream *stream = userdata;

        printf("%d items came back%s%s\n", stream->received, answer->status == BATON_OK ? "" : ": ", answer->message);
        stream->over = 1;
}

static int call_and_stream(struct baton_client *client, struct baton_connection *one, struct baton_connection *two) {
        struct baton_call_parameters call = { .size = sizeof(call), .method = "echo.Echo/Unary", .data = "hello" };
        struct stream stream = { .to_send = 1000 };
        struct baton_answer *answer;
        int r;

        call.data_size = strlen(call.data);
        r = baton_connection_call_wait(one, &call, &answer);
        if (r < 0)
                return r;
        if (answer->status == BATON_OK)
                printf("%.*s came back\n", (int) answer->size, (const char *) answer->data);
        else
                printf("no answer: status %d: %s\n", answer->status, answer->message);
        baton_answer_free(answer);

        call = (struct baton_call_parameters){ .size = sizeof(call), .method = "echo.Echo/Bidi", .stream = 1 };
        call.on_item = on_item;
        call.on_writable = send_more;
        r = baton_connection_call(two, &call, on_answer, &stream, &stream.request);
        if (r == 0)
                send_more(&stream);
        while (r == 0 && !stream.over)
                r = baton_client_dispatch(client, -1);
        return r;
}

/* open_own() - a supervisor and a runner of our own; @ret_started is the runner. */
static int open_own(struct baton_client **ret_client, struct baton_started *ret_started) {
        struct baton_start_parameters start = { .size = sizeof(start), .program = "baton-runner-echo" };
        int r = baton_client_new_private(ret_client, NULL);

        if (r < 0) {
                fprintf(stderr, "attach: cannot run baton: %s; $BATON_PROGRAM says where it is\n", strerror(-r));
                return r;
        }
        return baton_client_start(*ret_client, &start, ret_started);
}

static int open_shared(struct baton_client **ret_client) {
        int r = baton_client_new_connected(ret_client, NULL, NULL);

        if (r < 0)
                fprintf(stderr, "attach: cannot connect to a supervisor: %s; $BATON_SOCKET says where it is\n",
                        strerror(-r));
        return r;
}

int main(int argc, char **argv) {
        struct baton_started started = { .size = sizeof(started) };
        struct baton_connection *one, *two;
        struct baton_client *client = NULL;
        const char *name;
        int r;

        if (argc > 2) {
                fprintf(stderr, "attach: one runner's name at most: '%s' is too much\n", argv[2]);
                return 2;
        }
        r = argc > 1 ? open_shared(&client) : open_own(&client, &started);
        if (!client)
                return 1;
        name = argc > 1 ? argv[1] : started.name;
        if (r == 0 && (r = baton_client_attach(client, name, 0, &one)) == 0 &&
            (r = baton_client_attach(client, name, 0, &two)) == 0)
                r = call_and_stream(client, one, two);
        if (r != 0)
                fprintf(stderr, "attach: %s\n", r > 0 ? baton_client_failure(client)->message : strerror(-r));
        baton_client_free(client);
        return r != 0;
}
