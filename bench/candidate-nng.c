/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Candidate nng: REQ and REP over ipc, one context and one asynchronous operation for each call in flight, on both sides.
 * Callbacks come from nng's threads; the client's counting is under a lock.
 */

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/candidate.h"

typedef struct Side Side;

/* One call in flight: its context goes receive, send (server) or send, receive (client), and again. */
typedef struct Work {
        Side *side;
        size_t slot;
        nng_ctx context;
        nng_aio *aio;
        bool receiving;
} Work;

struct Side {
        nng_socket socket;
        Work *works;
        size_t n, answer;
        Exchange *exchange; /* of the client, with: */
        pthread_mutex_t lock;
        pthread_cond_t over;
};

static Side side = { .lock = PTHREAD_MUTEX_INITIALIZER, .over = PTHREAD_COND_INITIALIZER };

static void check(int r, const char *what) {
        if (r != 0)
                die("%s: %s", what, nng_strerror(r));
}

static void side_open(int (*open_socket)(nng_socket *), size_t n, void (*callback)(void *)) {
        check(open_socket(&side.socket), "socket");
        check(nng_socket_set_size(side.socket, NNG_OPT_RECVMAXSZ, 0), "no limit");
        side.n = n;
        side.works = calloc(n, sizeof(*side.works));
        if (!side.works)
                die("out of memory");
        for (size_t i = 0; i < n; i++) {
                side.works[i] = (Work){ .side = &side, .slot = i };
                check(nng_ctx_open(&side.works[i].context, side.socket), "context");
                check(nng_aio_alloc(&side.works[i].aio, callback, &side.works[i]), "aio");
        }
}

static void url_of(const Meeting *meeting, char *url, size_t size) {
        (void) snprintf(url, size, "ipc://%s", meeting->path);
}

/* ---- server ---- */

static void server_step(void *userdata) {
        Work *work = userdata;

        if (nng_aio_result(work->aio) != 0)
                return; /* closed */
        if (work->receiving) {
                nng_msg *message = nng_aio_get_msg(work->aio);
                size_t size = nng_msg_len(message);

                if (size > work->side->answer)
                        (void) nng_msg_chop(message, size - work->side->answer);
                work->receiving = false;
                nng_aio_set_msg(work->aio, message);
                nng_ctx_send(work->context, work->aio);
                return;
        }
        work->receiving = true;
        nng_ctx_recv(work->context, work->aio);
}

static void serve(const CandidateOptions *options, const Meeting *meeting) {
        char url[128];

        side.answer = options->answer;
        side_open(nng_rep0_open, options->window, server_step);
        url_of(meeting, url, sizeof(url));
        check(nng_listen(side.socket, url, NULL, 0), url);
        for (size_t i = 0; i < side.n; i++) {
                side.works[i].receiving = true;
                nng_ctx_recv(side.works[i].context, side.works[i].aio);
        }
        meeting_announce(meeting);
        meeting_await_end(meeting);
}

/* ---- client ---- */

/* send_call() - with the lock held. */
static void send_call(Work *work) {
        Exchange *exchange = work->side->exchange;
        nng_msg *message;

        if (!exchange_next(exchange, work->slot))
                return;
        check(nng_msg_alloc(&message, exchange->options->size), "message");
        memcpy(nng_msg_body(message), exchange->payload, exchange->options->size);
        work->receiving = false;
        nng_aio_set_msg(work->aio, message);
        nng_ctx_send(work->context, work->aio);
}

static void client_step(void *userdata) {
        Work *work = userdata;
        nng_msg *message;

        check(nng_aio_result(work->aio), "a call");
        if (!work->receiving) {
                work->receiving = true;
                nng_ctx_recv(work->context, work->aio);
                return;
        }
        message = nng_aio_get_msg(work->aio);
        (void) pthread_mutex_lock(&work->side->lock);
        exchange_answered(work->side->exchange, work->slot, nng_msg_len(message));
        send_call(work);
        if (exchange_is_over(work->side->exchange))
                (void) pthread_cond_signal(&work->side->over);
        (void) pthread_mutex_unlock(&work->side->lock);
        nng_msg_free(message);
}

static void client_open(const CandidateOptions *options, Meeting *meeting) {
        char url[128];

        meeting_await(meeting);
        side_open(nng_req0_open, options->window, client_step);
        url_of(meeting, url, sizeof(url));
        check(nng_dial(side.socket, url, NULL, 0), url);
}

static void client_run(Exchange *exchange) {
        (void) pthread_mutex_lock(&side.lock);
        side.exchange = exchange;
        for (size_t i = 0; i < side.n; i++)
                send_call(&side.works[i]);
        while (!exchange_is_over(exchange))
                (void) pthread_cond_wait(&side.over, &side.lock);
        (void) pthread_mutex_unlock(&side.lock);
}

static void client_close(void) {
        for (size_t i = 0; i < side.n; i++) {
                nng_aio_free(side.works[i].aio);
                (void) nng_ctx_close(side.works[i].context);
        }
        (void) nng_close(side.socket);
        free(side.works);
}

static const char *version(void) {
        static char text[64];

        (void) snprintf(text, sizeof(text), "nng %s", nng_version());
        return text;
}

int main(int argc, char **argv) {
        static const Candidate candidate = { "nng", version, serve, client_open, client_run, client_close };

        return candidate_main(&candidate, argc, argv);
}
