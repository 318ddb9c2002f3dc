/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Covers proto/peer-save: either side of a conversation is replaced, by a copy made from what was written down, after each
 * of its turns, and again after each later one; nobody notices. State that cannot be is refused, and leaves nothing.
 */

#include "tests/test.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "proto/peer-internal.h"
#include "proto/peer-save.h"
#include "tests/peer-host.h"
#include "tests/seam.h"

/* ----------------------------------------------------------------------------------------------------------- replacing */

/* hand_over() - @given as another process gets it: every descriptor another number, checked against its entry. */
static void hand_over(const Manifest *given, Manifest *ret_received) {
        char reason[MANIFEST_REASON_SIZE] = "";
        _cleanup_fd_ int memfd = -1;

        assert_int_equal(manifest_pack(given, &memfd), 0);
        assert_int_equal(manifest_unpack(ret_received, memfd, 0, 0, MANIFEST_FDS_MAX, reason), 0);
        for (size_t i = 0; i < given->n; i++)
                assert_int_equal(manifest_accept(ret_received, i, fd_dup(given->fds[i]), reason), 0);
}

/* through_bytes() - @state packed and unpacked. */
static Baton__Handover__Peer *through_bytes(Baton__Handover__Peer *state) {
        size_t size = baton__handover__peer__get_packed_size(state);
        uint8_t *packed = malloc(size);
        Baton__Handover__Peer *copy;

        assert_non_null(packed);
        assert_int_equal(baton__handover__peer__pack(state, packed), size);
        baton__handover__peer__free_unpacked(state, NULL);
        copy = baton__handover__peer__unpack(NULL, size, packed);
        assert_non_null(copy);
        free(packed);
        return copy;
}

/* leave() - the predecessor is gone without a word: its descriptors go, the connections stay. */
static void leave(Peer *peer) {
        peer->borrowed = true;
        (void) peer_free(peer);
}

static void save(Peer *peer, Manifest *received, Baton__Handover__Peer **ret_state) {
        Manifest given = MANIFEST_NULL;

        assert_int_equal(peer_save(peer, "runner/a", &given, ret_state), 0);
        *ret_state = through_bytes(*ret_state);
        hand_over(&given, received);
        manifest_deinit(&given);
}

static void silent_watch(void *host, unsigned slot, int fd, unsigned events) {
        (void) host;
        (void) slot;
        (void) fd;
        (void) events;
}

static void silent_wake(void *host) {
        (void) host;
}

static const PeerHost silent = { .watch = silent_watch, .wake = silent_wake };

/* restore() - in @test, whose peer before is then heard of no more: it is another process's. */
static int restore(TestPeer *test, const PeerConfig *config, const Baton__Handover__Peer *state, Manifest *received,
                   Peer **ret_old, char reason[MANIFEST_REASON_SIZE]) {
        Peer *old = test->peer;
        PeerHost host = old->host_functions;
        int r;

        old->host_functions = silent;
        r = peer_restore(&test->peer, state, "runner/a", received, config, &host, test, &test_handler, test, reason);
        if (r == 0)
                *ret_old = old;
        else
                old->host_functions = host;
        return r;
}

/* take_back() - the peer before is the one again. */
static void take_back(TestPeer *test, Peer *old) {
        PeerHost host = test->peer->host_functions;

        leave(test->peer);
        assert_true(test->released);
        test->released = false;
        test->peer = old;
        old->host_functions = host;
        old->lane_watched = 0;
        for (unsigned n = 0; n < LANE_CHANNELS; n++)
                old->channels[n].watched = 0;
        peer_watch_all(old);
        old->awake = false;
        peer_wake(old);
}

/* -------------------------------------------------------------------------------------------------------- a conversation */

enum {
        UNARY = 12,
        STREAMS = 3,
        ITEMS = 24,
        ITEM_SIZE = 30000,
};

typedef struct Talk Talk;

/* A stream on the calling side: it sends ITEMS, and gets each back. */
typedef struct Caller {
        Talk *talk;
        Call *call;
        unsigned sent, received;
        bool done;
} Caller;

/* And on the other: one item at a time is kept until it could be sent back. */
typedef struct Echo {
        Talk *talk;
        Call *call;
        bool ended, over;
} Echo;

struct Talk {
        TestPeer a, b, *all[2];
        PeerConfig configs[2];
        TestAnswer answers[UNARY];
        Call *unary[UNARY];
        Caller callers[STREAMS];
        Echo echoes[STREAMS];
        unsigned n_echoes, n_done;
        int pipes[2];
        uint8_t *payload;
};

static size_t unary_size(unsigned i) {
        return i % 3 == 0 ? 10 : i % 3 == 1 ? 3000 : 300 * 1024;
}

/* -- calling */

static void send_items(Caller *caller) {
        while (caller->sent < ITEMS) {
                uint32_t head = caller->sent;
                int fd = caller->sent % 8 == 7 ? fd_dup(caller->talk->pipes[0]) : -1;
                ItemParameters item = {
                        .payload = caller->talk->payload,
                        .size = ITEM_SIZE,
                        .fds_consume = &fd,
                        .n_fds = fd >= 0,
                };
                int r;

                memcpy(caller->talk->payload, &head, sizeof(head));
                r = call_send(caller->call, &item);
                if (r == -EAGAIN) {
                        fd_close(fd);
                        return;
                }
                assert_int_equal(r, 0);
                caller->sent++;
        }
        (void) call_end(caller->call);
}

static void caller_writable(Call *call, void *userdata) {
        (void) call;
        send_items(userdata);
}

static bool caller_item(Call *call, const Item *item, void *userdata) {
        Caller *caller = userdata;
        uint32_t head;

        (void) call;
        assert_int_equal(item->size, ITEM_SIZE);
        memcpy(&head, item->payload, sizeof(head));
        assert_int_equal(head, caller->received);
        assert_int_equal(item->n_fds, head % 8 == 7);
        if (item->n_fds)
                assert_true(item->fds[0] >= 0 && test_same_file(item->fds[0], caller->talk->pipes[0]));
        caller->received++;
        return true;
}

static void caller_done(Call *call, const Answer *answer, void *userdata) {
        Caller *caller = userdata;

        (void) call;
        assert_int_equal(answer->status, STATUS_OK);
        caller->done = true;
        caller->call = NULL;
        caller->talk->n_done++;
}

/* -- answering */

static bool echo_item(Call *call, const Item *item, void *userdata) {
        Echo *echo = userdata;

        if (!item->bare) {
                ItemParameters back = {
                        .payload = item->payload,
                        .size = item->size,
                        .fds_consume = item->fds,
                        .n_fds = item->n_fds,
                };
                int r = call_send(call, &back);

                if (r == -EAGAIN)
                        return false;
                assert_int_equal(r, 0);
                for (size_t i = 0; i < item->n_fds; i++)
                        item->fds[i] = -1;
        }
        if (item->end) {
                echo->over = true;
                (void) call_answer(call, &(AnswerParameters){ .status = STATUS_OK });
        }
        return true;
}

static void echo_writable(Call *call, void *userdata) {
        (void) userdata;
        call_resume(call);
}

static Talk *talk_of;

static void echo_call(Peer *peer, Call *call) {
        AnswerParameters answer = { 0 };
        int copies[4];
        size_t n;
        int *fds;

        (void) peer;
        if (call_takes_items(call)) {
                Echo *echo = &talk_of->echoes[talk_of->n_echoes++];

                *echo = (Echo){ .talk = talk_of, .call = call };
                call_on_stream(call, echo_item, echo_writable, echo);
                return;
        }
        answer.payload = call_payload(call, &answer.size);
        fds = call_fds(call, &n);
        for (size_t i = 0; i < n; i++)
                copies[i] = fd_take(&fds[i]);
        answer.fds_consume = copies;
        answer.n_fds = n;
        (void) call_answer(call, &answer);
}

/* -- both */

static void talk_open(Talk *talk) {
        static const PeerLimits limits = { .fd_credit = 4, .max_unsent = 64 * 1024 };
        int fds[2];

        *talk = (Talk){ .all = { &talk->a, &talk->b } };
        talk_of = talk;
        talk->b.on_call = echo_call;
        talk->payload = calloc(1, 300 * 1024);
        assert_non_null(talk->payload);
        assert_int_equal(pipe2(talk->pipes, O_CLOEXEC), 0);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        talk->configs[0] = (PeerConfig){ .side = 0, .n_channels = 3, .limits = &limits, .software = "a" };
        talk->configs[1] = (PeerConfig){ .side = 1, .n_channels = 3, .limits = &limits, .software = "b" };
        test_peer_new(&talk->a, &talk->configs[0], fds[0]);
        test_peer_new(&talk->b, &talk->configs[1], fds[1]);
}

static void talk_begin(Talk *talk) {
        for (unsigned i = 0; i < UNARY; i++) {
                int fds[2] = { -1, -1 };
                CallParameters call = {
                        .method = "echo",
                        .payload = talk->payload,
                        .size = unary_size(i),
                        .timeout_us = i % 4 == 0 ? 3600 * USEC_PER_SEC : 0,
                        .fds_consume = fds,
                        .n_fds = i % 5 == 4 ? 2 : 0,
                };

                for (size_t j = 0; j < call.n_fds; j++)
                        fds[j] = fd_dup(talk->pipes[j]);
                assert_int_equal(call_start(talk->a.peer, &call, test_done, &talk->answers[i], &talk->unary[i]), 0);
        }
        for (unsigned i = 0; i < STREAMS; i++) {
                Caller *caller = &talk->callers[i];
                CallParameters call = {
                        .method = "stream",
                        .stream = true,
                        .item = caller_item,
                        .writable = caller_writable,
                };

                caller->talk = talk;
                assert_int_equal(call_start(talk->a.peer, &call, caller_done, caller, &caller->call), 0);
                send_items(caller);
        }
}

static bool talk_is_over(const Talk *talk) {
        for (unsigned i = 0; i < UNARY; i++)
                if (talk->answers[i].n == 0)
                        return false;
        return talk->n_done == STREAMS;
}

static void talk_check(Talk *talk) {
        for (unsigned i = 0; i < UNARY; i++) {
                TestAnswer *answer = &talk->answers[i];

                assert_int_equal(answer->n, 1);
                assert_int_equal(answer->status, STATUS_OK);
                assert_int_equal(answer->size, unary_size(i));
                assert_int_equal(answer->n_fds, i % 5 == 4 ? 2 : 0);
                for (size_t j = 0; j < answer->n_fds; j++)
                        assert_true(test_same_file(answer->fds[j], talk->pipes[j]));
                fd_close_all(answer->fds, answer->n_fds);
        }
        for (unsigned i = 0; i < STREAMS; i++) {
                assert_int_equal(talk->callers[i].received, ITEMS);
                assert_true(talk->callers[i].done);
        }
        assert_int_equal(talk->a.n_ended + talk->b.n_ended, 0);
}

static void talk_close(Talk *talk) {
        test_peer_free(&talk->a);
        test_peer_free(&talk->b);
        fd_close_all(talk->pipes, 2);
        free(talk->payload);
}

/* replace_a(), replace_b() - with the calls bound again by their numbers. */
static void bind_a(Talk *talk, const uint32_t unary[UNARY], const uint32_t streams[STREAMS]) {
        for (unsigned i = 0; i < UNARY; i++)
                if (unary[i] > 0) {
                        assert_null(peer_claim_call(talk->a.peer, unary[i], false)); /* not of that direction */
                        talk->unary[i] = peer_claim_call(talk->a.peer, unary[i], true);
                        assert_non_null(talk->unary[i]);
                        call_bind(talk->unary[i], test_done, NULL, NULL, &talk->answers[i]);
                        assert_null(peer_claim_call(talk->a.peer, unary[i], true)); /* somebody has it */
                }
        for (unsigned i = 0; i < STREAMS; i++)
                if (streams[i] > 0) {
                        talk->callers[i].call = peer_claim_call(talk->a.peer, streams[i], true);
                        assert_non_null(talk->callers[i].call);
                        call_bind(talk->callers[i].call, caller_done, caller_item, caller_writable, &talk->callers[i]);
                }
}

static void bind_b(Talk *talk, const uint32_t echoes[STREAMS]) {
        for (unsigned i = 0; i < talk->n_echoes; i++)
                if (!talk->echoes[i].over) {
                        talk->echoes[i].call = peer_claim_call(talk->b.peer, echoes[i], false);
                        assert_non_null(talk->echoes[i].call);
                        call_on_stream(talk->echoes[i].call, echo_item, echo_writable, &talk->echoes[i]);
                }
}

/* check_same() - what no peer that keeps the rules would notice. */
static void check_same(const Peer *a, const Peer *b) {
        assert_int_equal(a->lane.next_n, b->lane.next_n);
        assert_int_equal(a->lane.n_queued, b->lane.n_queued);
        assert_int_equal(a->held_fds, b->held_fds);
        assert_int_equal(a->reserved_bytes, b->reserved_bytes);
        assert_int_equal(a->open_in, b->open_in);
        assert_int_equal(a->open_out, b->open_out);
        assert_int_equal(a->lane_calls, b->lane_calls);
        assert_int_equal(a->parcel_bytes, b->parcel_bytes);
        assert_memory_equal(&a->limits, &b->limits, sizeof(a->limits));
        assert_memory_equal(&a->counters, &b->counters, sizeof(a->counters));
        for (unsigned n = 0; n < a->n_channels; n++) {
                assert_int_equal(a->channels[n].last_in, b->channels[n].last_in);
                assert_int_equal(a->channels[n].next_out, b->channels[n].next_out);
                assert_int_equal(a->channels[n].paused, b->channels[n].paused);
                assert_int_equal(a->channels[n].written, b->channels[n].written);
                if (frame_writer_pending(&b->channels[n].writer) > 0 && b->state == PEER_STATE_READY)
                        assert_true(b->channels[n].watched & PEER_OUT); /* nobody else may say anything */
        }
        if (!STAILQ_EMPTY(&b->lane.outgoing))
                assert_true(b->lane_watched & PEER_OUT);
}

static void replace(Talk *talk, unsigned side) {
        uint32_t unary[UNARY] = { 0 }, streams[STREAMS] = { 0 }, echoes[STREAMS] = { 0 };
        TestPeer *test = talk->all[side];
        char reason[MANIFEST_REASON_SIZE] = "";
        Call *theirs[STREAMS] = { NULL };
        Baton__Handover__Peer *state;
        Manifest received;
        Peer *old = NULL;

        save(test->peer, &received, &state);
        for (unsigned i = 0; side == 0 && i < UNARY; i++)
                unary[i] = talk->answers[i].n == 0 ? peer_saved_call(talk->unary[i]) : 0;
        for (unsigned i = 0; side == 0 && i < STREAMS; i++)
                streams[i] = talk->callers[i].call ? peer_saved_call(talk->callers[i].call) : 0;
        for (unsigned i = 0; side == 1 && i < talk->n_echoes; i++) {
                theirs[i] = talk->echoes[i].over ? NULL : talk->echoes[i].call;
                echoes[i] = theirs[i] ? peer_saved_call(theirs[i]) : 0;
        }
        if (restore(test, &talk->configs[side], state, &received, &old, reason) < 0)
                fail_msg("%s", reason);
        for (size_t i = 0; i < received.n; i++)
                assert_int_equal(received.fds[i], -1); /* every descriptor has found its place */
        manifest_deinit(&received);
        baton__handover__peer__free_unpacked(state, NULL);
        check_same(old, test->peer);
        leave(old);
        for (unsigned i = 0; i < STREAMS; i++)
                if (theirs[i])
                        assert_int_equal(call_answer(theirs[i], &(AnswerParameters){ 0 }), -ECANCELED);
        if (side == 0)
                bind_a(talk, unary, streams);
        else
                bind_b(talk, echoes);
        peer_own(test->peer);
}

/* one_talk() - replacing @side after turn @from, and then after each @every turns. Returns how many turns it took. */
static unsigned one_talk(int side, unsigned from, unsigned every) {
        Talk talk;
        unsigned turns = 0;

        talk_open(&talk);
        talk_begin(&talk);
        while (!talk_is_over(&talk)) {
                assert_true(turns < 100000);
                if (side >= 0 && turns >= from && (turns - from) % every == 0)
                        replace(&talk, side == 2 ? turns / every % 2 : (unsigned) side);
                (void) test_turn(talk.all, 2);
                turns++;
        }
        talk_check(&talk);
        talk_close(&talk);
        return turns;
}

static void test_after_each_turn(void **state) {
        unsigned turns = one_talk(-1, 0, 1);

        (void) state;
        assert_true(turns > 10);
        for (int side = 0; side < 2; side++)
                for (unsigned i = 0; i < turns; i += turns / 40 + 1)
                        (void) one_talk(side, i, 1000000);
}

static void test_again_and_again(void **state) {
        (void) state;
        (void) one_talk(0, 0, 1);
        (void) one_talk(1, 0, 1);
        (void) one_talk(2, 0, 1);
        (void) one_talk(2, 1, 3);
}

/* --------------------------------------------------------------------------------------------------------- single cases */

/* Before there is a lane: what is started waits for it, in whichever process. */
static void test_before_connection(void **state) {
        PeerConfig config = { .side = 0, .n_channels = 3, .software = "a" }, other = { .side = 1, .n_channels = 3 };
        char reason[MANIFEST_REASON_SIZE] = "";
        TestPeer a = { 0 }, b = { 0 }, *all[] = { &a, &b };
        CallParameters call = { .method = "echo", .payload = "early", .size = 5 };
        Baton__Handover__Peer *saved;
        TestAnswer answer = { 0 };
        Manifest received;
        Call *started;
        uint32_t number;
        Peer *old;
        int fds[2];

        (void) state;
        test_peer_new(&a, &config, -1);
        assert_int_equal(call_start(a.peer, &call, test_done, &answer, &started), 0);
        save(a.peer, &received, &saved);
        number = peer_saved_call(started);
        assert_int_equal(restore(&a, &config, saved, &received, &old, reason), 0);
        baton__handover__peer__free_unpacked(saved, NULL);
        manifest_deinit(&received);
        leave(old);
        call_bind(peer_claim_call(a.peer, number, true), test_done, NULL, NULL, &answer);
        peer_own(a.peer);
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        peer_connect(a.peer, fds[0]);
        test_peer_new(&b, &other, fds[1]);
        test_until(all, 2, &answer.n, 1);
        assert_int_equal(answer.status, STATUS_OK);
        assert_memory_equal(answer.payload, "early", 5);
        test_peer_free(&a);
        test_peer_free(&b);
}

/* What nobody takes over: a call of the other side's is answered, one of ours goes on unheard. */
static void test_unclaimed(void **state) {
        char reason[MANIFEST_REASON_SIZE] = "";
        CallParameters call = { .method = "kept" };
        TestAnswer ours = { 0 }, theirs = { 0 };
        Baton__Handover__Peer *saved;
        Manifest received;
        Talk talk;
        Peer *old;

        (void) state;
        talk_open(&talk);
        talk.a.on_call = talk.b.on_call = test_keep;
        test_settle(talk.all, 2);
        assert_int_equal(call_start(talk.a.peer, &call, test_done, &ours, NULL), 0);
        assert_int_equal(call_start(talk.b.peer, &call, test_done, &theirs, NULL), 0);
        test_settle(talk.all, 2);
        assert_int_equal(test_n_kept, 2);
        save(talk.a.peer, &received, &saved);
        assert_int_equal(restore(&talk.a, &talk.configs[0], saved, &received, &old, reason), 0);
        baton__handover__peer__free_unpacked(saved, NULL);
        manifest_deinit(&received);
        leave(old);
        assert_null(peer_claim_call(talk.a.peer, 0, true));
        assert_null(peer_claim_call(talk.a.peer, 3, true));
        peer_own(talk.a.peer);
        test_until(talk.all, 2, &theirs.n, 1);
        assert_int_equal(theirs.status, STATUS_INTERNAL);
        for (unsigned i = 0; i < test_n_kept; i++) /* one is of the peer that left: its owner still ends it */
                (void) call_answer(test_kept[i], &(AnswerParameters){ 0 });
        test_n_kept = 0;
        test_settle(talk.all, 2);
        assert_int_equal(ours.n, 0);
        assert_int_equal(peer_open_calls(talk.a.peer, &(size_t){ 0 }), 0);
        talk_close(&talk);
}

/* The deadline is a moment: it comes in the successor as it would have come. */
static void test_deadline(void **state) {
        char reason[MANIFEST_REASON_SIZE] = "";
        CallParameters call = { .method = "kept", .timeout_us = 50 * USEC_PER_SEC };
        Baton__Handover__Peer *saved;
        TestAnswer answer = { 0 };
        Manifest received;
        uint64_t deadline;
        Call *started;
        Talk talk;
        Peer *old;

        (void) state;
        talk_open(&talk);
        talk.b.on_call = test_keep;
        assert_int_equal(call_start(talk.a.peer, &call, test_done, &answer, &started), 0);
        test_settle(talk.all, 2);
        deadline = peer_deadline(talk.a.peer);
        assert_true(deadline != USEC_INFINITY);
        save(talk.a.peer, &received, &saved);
        assert_int_equal(restore(&talk.a, &talk.configs[0], saved, &received, &old, reason), 0);
        call_bind(peer_claim_call(talk.a.peer, peer_saved_call(started), true), test_done, NULL, NULL, &answer);
        baton__handover__peer__free_unpacked(saved, NULL);
        manifest_deinit(&received);
        leave(old);
        peer_own(talk.a.peer);
        assert_int_equal(peer_deadline(talk.a.peer), deadline);
        test_end_kept(0);
        test_until(talk.all, 2, &answer.n, 1);
        assert_int_equal(answer.status, STATUS_OK);
        talk_close(&talk);
}

static void test_refused_to_save(void **state) {
        Baton__Handover__Peer *saved;
        Manifest given = MANIFEST_NULL;
        Talk talk;

        (void) state;
        talk_open(&talk);
        test_settle(talk.all, 2);
        peer_enter(talk.a.peer);
        assert_int_equal(peer_save(talk.a.peer, "x", &given, &saved), -EBUSY);
        peer_leave(talk.a.peer);
        peer_close(talk.a.peer, STATUS_OK, "done");
        assert_int_equal(peer_save(talk.a.peer, "x", &given, &saved), -ESHUTDOWN);
        manifest_deinit(&given);
        talk_close(&talk);
}

/* ---------------------------------------------------------------------------------------------------------- bad state */

/* busy() - a conversation in the middle: with calls, streams, parcels and items that wait. */
static void busy(Talk *talk) {
        talk_open(talk);
        talk_begin(talk);
        for (unsigned i = 0; i < 4; i++)
                (void) test_turn(talk->all, 2);
}

/* end_talk() - what is under way ends with its peers. */
static void end_talk(Talk *talk) {
        for (unsigned i = 0; i < UNARY; i++)
                fd_close_all(talk->answers[i].fds, talk->answers[i].n_fds);
        test_peer_free(&talk->a);
        test_peer_free(&talk->b);
        for (unsigned i = 0; i < talk->n_echoes; i++)
                if (!talk->echoes[i].over)
                        (void) call_answer(talk->echoes[i].call, &(AnswerParameters){ 0 });
        fd_close_all(talk->pipes, 2);
        free(talk->payload);
}

static void test_missing_descriptors(void **state) {
        char reason[MANIFEST_REASON_SIZE] = "";
        Baton__Handover__Peer *saved;
        Manifest received;
        size_t n = 1;
        Talk talk;
        Peer *old;

        (void) state;
        busy(&talk);
        for (size_t i = 0; i < n; i++) {
                save(talk.a.peer, &received, &saved);
                n = received.n;
                received.fds[i] = fd_close(received.fds[i]);
                /* One that an incoming call holds may be missing: its handler may have taken it. */
                if (restore(&talk.a, &talk.configs[0], saved, &received, &old, reason) == 0)
                        fail_msg("restored without %s", received.entries[i]->name);
                assert_non_null(strstr(reason, "missing"));
                baton__handover__peer__free_unpacked(saved, NULL);
                manifest_deinit(&received);
        }
        assert_true(n > 3);
        end_talk(&talk);
}

static void test_contradictions(void **state) {
        char reason[MANIFEST_REASON_SIZE] = "";
        Baton__Handover__Peer *saved;
        Manifest received;
        Talk talk;
        Peer *old;

        (void) state;
        busy(&talk);
        for (unsigned i = 0;; i++) {
                int expected = -EPROTO;

                save(talk.a.peer, &received, &saved);
                if (i == 0)
                        saved->side = 1;
                else if (i == 1)
                        saved->renewal = 3;
                else if (i == 2)
                        saved->state = (Baton__Handover__Peer__State) 3;
                else if (i == 3)
                        saved->calls[0]->channel = 3;
                else if (i == 4)
                        saved->calls[saved->n_calls - 1]->id = saved->calls[0]->id, saved->calls[0]->open = true,
                                                      saved->calls[saved->n_calls - 1]->open = true;
                else if (i == 5)
                        saved->channels[0]->use = 9;
                else if (i == 6)
                        saved->parcels[0]->kind = 7;
                else if (i == 7)
                        saved->parcels[0]->call = 999;
                else if (i == 8)
                        saved->parcels[0]->after = 999;
                else if (i == 9)
                        saved->parcels[0]->fds = UINT32_MAX;
                else if (i == 10)
                        saved->remote->protocol = 99, expected = -EPROTONOSUPPORT;
                else
                        break;
                assert_int_equal(restore(&talk.a, &talk.configs[0], saved, &received, &old, reason), expected);
                assert_true(strlen(reason) > 0);
                baton__handover__peer__free_unpacked(saved, NULL);
                manifest_deinit(&received);
        }
        baton__handover__peer__free_unpacked(saved, NULL);
        manifest_deinit(&received);
        end_talk(&talk);
}

static void test_features(void **state) {
        static const char *const ours[] = { "one", "two", NULL }, *const fewer[] = { "one", NULL };
        char reason[MANIFEST_REASON_SIZE] = "";
        Baton__Handover__Peer *saved;
        Manifest received;
        PeerConfig config;
        TestPeer a = { 0 }, b = { 0 }, *all[] = { &a, &b };
        Peer *old;
        int fds[2];

        (void) state;
        assert_int_equal(fd_socketpair(SOCK_STREAM, fds), 0);
        config = (PeerConfig){ .side = 0, .n_channels = 1, .features = ours };
        test_peer_new(&a, &config, fds[0]);
        config.side = 1;
        test_peer_new(&b, &config, fds[1]);
        test_settle(all, 2);
        config.side = 0;
        config.features = fewer;
        save(a.peer, &received, &saved);
        assert_int_equal(restore(&a, &config, saved, &received, &old, reason), -EPROTONOSUPPORT);
        assert_string_equal(reason, "runner/a: the feature two is in use, and not known here");
        manifest_deinit(&received);
        baton__handover__peer__free_unpacked(saved, NULL);
        config.features = ours;
        save(a.peer, &received, &saved);
        assert_int_equal(restore(&a, &config, saved, &received, &old, reason), 0);
        assert_int_equal(peer_remote(a.peer)->features, 3);
        manifest_deinit(&received);
        baton__handover__peer__free_unpacked(saved, NULL);
        leave(old);
        peer_own(a.peer);
        test_settle(all, 2);
        assert_int_equal(a.n_ended + b.n_ended, 0);
        test_peer_free(&a);
        test_peer_free(&b);
}

/* Each allocation fails once, in the saving and in the restoring: the conversation goes on, with who had it. */
static void test_no_memory(void **state) {
        static const SeamCall calls[] = { SEAM_MALLOC, SEAM_CALLOC, SEAM_REALLOC };
        char reason[MANIFEST_REASON_SIZE] = "";
        Talk talk;

        (void) state;
        busy(&talk);
        for (size_t c = 0; c < ARRAY_SIZE(calls); c++)
                for (unsigned i = 1;; i++) {
                        Manifest given = MANIFEST_NULL;
                        Baton__Handover__Peer *saved;
                        int r;

                        seam_fail(calls[c], i, ENOMEM);
                        r = peer_save(talk.a.peer, "runner/a", &given, &saved);
                        seam_pass(calls[c]);
                        manifest_deinit(&given);
                        if (r == 0) {
                                baton__handover__peer__free_unpacked(saved, NULL);
                                break;
                        }
                        assert_int_equal(r, -ENOMEM);
                }
        for (size_t c = 0; c < ARRAY_SIZE(calls); c++)
                for (unsigned i = 1;; i++) {
                        Baton__Handover__Peer *saved;
                        Manifest received;
                        Peer *old = NULL;
                        int r;

                        save(talk.a.peer, &received, &saved);
                        seam_fail(calls[c], i, ENOMEM);
                        r = restore(&talk.a, &talk.configs[0], saved, &received, &old, reason);
                        seam_pass(calls[c]);
                        manifest_deinit(&received);
                        baton__handover__peer__free_unpacked(saved, NULL);
                        if (r == 0) { /* and is not wanted */
                                take_back(&talk.a, old);
                                break;
                        }
                        assert_int_equal(r, -ENOMEM);
                }
        while (!talk_is_over(&talk))
                (void) test_turn(talk.all, 2);
        talk_check(&talk);
        talk_close(&talk);
}

static const struct CMUnitTest tests[] = {
        TEST_SLOW(test_after_each_turn, 60),
        TEST_SLOW(test_again_and_again, 60),
        TEST(test_before_connection),
        TEST(test_unclaimed),
        TEST(test_deadline),
        TEST(test_refused_to_save),
        TEST(test_missing_descriptors),
        TEST(test_contradictions),
        TEST(test_features),
        TEST_SLOW(test_no_memory, 60),
};

int main(void) {
        return test_run(tests, ARRAY_SIZE(tests));
}
