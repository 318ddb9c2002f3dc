/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A client's connection, written down by one supervisor and taken up by the next, as control_restore() does it: its role goes
 * along and is asked for as before; calls that wait are answered to whoever made them, once; half a frame is gone on with, and
 * what is over the limits of a role stays over them. A state that cannot be is refused, with every descriptor closed, and with
 * every byte of it changed nothing breaks.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "proto/control.pb-c.h"
#include "proto/peer-internal.h"
#include "proto/peer-save.h"
#include "supervisor/control-internal.h"
#include "supervisor/crossing.h"
#include "supervisor/peer-loop.h"
#include "tests/supervisor-fixture.h"
#include "tests/test.h"

#define PREFIX "client/1"

static const char configuration[] = "runners:\n"
                                    "  web: { command: [/x], instances: 2, autostart: false }\n";

/*
 * One supervisor is both of them, since there is one loop in a process. So it does not turn while the connection is there
 * twice: the one that does not serve would take what is meant for the other.
 */
typedef struct Handover {
        SupervisorFixture base;
        Control *control;
        Peer *client;
        Role role;
        unsigned n_done, n_ended;
        Status status; /* of the last answer */
        char message[256];
} Handover;

/* ---- both ends ---- */

static void control_ended(Control *control, void *userdata) {
        Handover *h = userdata;

        assert_ptr_equal(control, h->control);
        h->control = control_free(control);
        h->n_ended++;
}

static ControlClient who(Handover *h) {
        return (ControlClient){ .credentials = { getpid(), 65534, 65534 }, /* whoever we are */
                                .role = h->role,
                                .ended = control_ended,
                                .userdata = h };
}

static void client_ended(Peer *peer, Status status, const char *reason) {
        Handover *h = peer_userdata(peer);

        h->status = status;
        (void) snprintf(h->message, sizeof(h->message), "%s", reason);
        h->client = peer_free(peer);
}

static const PeerHandler client_handler = { .ended = client_ended };

static void turn(Handover *h) {
        for (unsigned i = 0; i < 5; i++)
                supervisor_fixture_turn(&h->base);
}

static void open_handover(Handover *h, Role role) {
        const PeerConfig config = { .side = 1, .n_channels = 1, .renewal = LANE_RENEWAL_NONE, .software = "test" };
        PeerLoopParameters parameters = { .config = &config, .handler = &client_handler, .userdata = h };
        ControlClient client;
        int lane[2];

        *h = (Handover){ .role = role };
        client = who(h);
        supervisor_fixture_open(&h->base, 1, configuration);
        assert_int_equal(fd_socketpair(SOCK_STREAM, lane), 0);
        assert_int_equal(control_new(&h->control, h->base.supervisor, lane[0], &client), 0);
        parameters.loop = h->base.supervisor->loop;
        assert_int_equal(peer_loop_new(&h->client, &parameters, lane[1]), 0);
        turn(h);
}

static void close_handover(Handover *h) {
        h->client = peer_free(h->client);
        turn(h);
        assert_null(h->control);
        supervisor_fixture_close(&h->base);
}

/* ---- calls ---- */

static void done(Call *call, const Answer *answer, void *userdata) {
        Handover *h = userdata;

        (void) call;
        h->n_done++;
        h->status = answer->status;
        (void) snprintf(h->message, sizeof(h->message), "%s", answer->message);
}

static void ask(Handover *h, const char *method, const ProtobufCMessage *request) {
        uint8_t packed[64];
        const CallParameters parameters = { .method = method,
                                            .type = request->descriptor->name,
                                            .payload = packed,
                                            .size = protobuf_c_message_pack(request, packed) };
        Call *call;

        assert_int_equal(call_start(h->client, &parameters, done, h, &call), 0);
}

/* ask_events() - of which there is none yet: it waits. */
static void ask_events(Handover *h) {
        Baton__Control__EventsRequest request = BATON__CONTROL__EVENTS_REQUEST__INIT;

        request.from_seq = events_next_seq(h->base.supervisor->events);
        request.wait = true;
        ask(h, "baton.Control/Events", &request.base);
}

/* expect() - of a call that is made now. */
static void expect(Handover *h, const char *method, const ProtobufCMessageDescriptor *type, Status status) {
        unsigned before = h->n_done;
        ProtobufCMessage *request = calloc(1, type->sizeof_message);

        assert_non_null(request);
        protobuf_c_message_init(type, request);
        ask(h, method, request);
        free(request);
        turn(h);
        assert_int_equal(h->n_done, before + 1);
        assert_int_equal(h->status, status);
}

static void expect_status(Handover *h) {
        expect(h, "baton.Control/Takeovers", &baton__control__takeovers_request__descriptor, STATUS_OK);
}

static void publish(Handover *h) {
        events_publish(h->base.supervisor->events, &(Event){ .kind = EVENT_SUPERVISOR_STARTED });
}

/* ---- from one to the next ---- */

/* What has been written down. */
typedef struct Written {
        Baton__Handover__Peer *state;
        Manifest manifest; /* as it arrives: descriptors of its own */
} Written;

/* arrive() - the first @n of @given. */
static void arrive(const Manifest *given, size_t n, Manifest *ret_received) {
        char reason[MANIFEST_REASON_SIZE] = "";
        Manifest some = MANIFEST_NULL;
        int memfd;

        for (size_t i = 0; i < n; i++)
                assert_int_equal(manifest_add(&some, given->entries[i]->name, given->fds[i]), 0);
        assert_int_equal(manifest_pack(&some, &memfd), 0);
        assert_int_equal(manifest_unpack(ret_received, memfd, 0, 0, MANIFEST_FDS_MAX, reason), 0);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(manifest_accept(ret_received, i, fd_dup(some.fds[i]), reason), 0);
        manifest_deinit(&some);
        fd_close(memfd);
}

/* write_down() - with the first @n_fds of its descriptors. */
static void write_down(Handover *h, size_t n_fds, Written *ret) {
        Manifest given = MANIFEST_NULL;

        assert_int_equal(peer_save(control_peer(h->control), PREFIX, &given, &ret->state), 0);
        assert_int_equal(given.n, 2); /* lane and channel */
        arrive(&given, MIN(n_fds, given.n), &ret->manifest);
        manifest_deinit(&given);
}

static void forget(Written *written) {
        baton__handover__peer__free_unpacked(written->state, NULL);
        manifest_deinit(&written->manifest);
}

/* take_up() - what control_restore() says. */
static int take_up(Handover *h, Written *written, Control **ret) {
        const ControlClient client = who(h);

        *ret = NULL;
        return control_restore(ret, h->base.supervisor, &client, written->state, PREFIX, &written->manifest);
}

/* follow() - @next serves from here on; the one before leaves without a word. */
static void follow(Handover *h, Control *next) {
        h->control->peer->borrowed = true;
        (void) control_free(h->control);
        h->control = next;
        peer_own(control_peer(next));
        turn(h);
        assert_int_equal(h->n_ended, 0);
}

static const Role roles[] = { ROLE_READ, ROLE_OPERATE, ROLE_ADMIN };

/* Whoever it was, it is, and may what it might. */
static void test_role(void **state) {
        (void) state;
        for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
                Written written = { 0 };
                Handover h;
                Control *next;

                open_handover(&h, roles[i]);
                expect_status(&h);
                write_down(&h, 2, &written);
                assert_int_equal(take_up(&h, &written, &next), 0);
                forget(&written);
                follow(&h, next);
                assert_int_equal(control_client(next)->role, roles[i]);
                assert_int_equal(control_client(next)->credentials.uid, 65534);
                expect_status(&h);
                expect(&h, "baton.Control/Reset", &baton__control__reset_request__descriptor,
                       roles[i] < ROLE_OPERATE ? STATUS_PERMISSION_DENIED : STATUS_NOT_FOUND);
                /* Nobody has a keeper here that would start one. */
                expect(&h, "baton.Control/Takeover", &baton__control__takeover_request__descriptor,
                       roles[i] < ROLE_ADMIN ? STATUS_PERMISSION_DENIED : STATUS_FAILED_PRECONDITION);
                close_handover(&h);
        }
}

/* ---- calls that wait ---- */

typedef struct Waiting {
        uint32_t number; /* of the call */
        uint8_t request[64];
        size_t size;
} Waiting;

static void keep_request(const ProtobufCMessage *request, void *userdata) {
        Waiting *waiting = userdata;

        assert_true(protobuf_c_message_get_packed_size(request) <= sizeof(waiting->request));
        waiting->size = protobuf_c_message_pack(request, waiting->request);
}

/* note_waiting() - those that are open, after they were written down. Returns how many. */
static size_t note_waiting(const Handover *h, Waiting *waiting, size_t max) {
        const Crossing *crossing;
        size_t n = 0;

        LIST_FOREACH (crossing, &h->base.supervisor->crossings, link) {
                assert_true(n < max);
                assert_string_equal(crossing->method, "Events");
                waiting[n].number = peer_saved_call(crossing->call);
                assert_true(waiting[n].number > 0);
                crossing->give(crossing, keep_request, &waiting[n++]);
        }
        return n;
}

enum { MANY = 64 }; /* what a reader may have open at once */

/* As many as there may be wait, the next one has to wait for one of them; each is answered once. */
static void test_waiting(void **state) {
        Written written = { 0 };
        Waiting waiting[MANY];
        Control *next;
        Handover h;
        size_t n;

        (void) state;
        open_handover(&h, ROLE_READ);
        for (size_t i = 0; i < MANY; i++)
                ask_events(&h);
        turn(&h);
        ask_events(&h);
        turn(&h);
        assert_int_equal(h.n_done, 0);
        write_down(&h, 2, &written);
        n = note_waiting(&h, waiting, MANY);
        assert_int_equal(n, MANY);
        assert_int_equal(take_up(&h, &written, &next), 0);
        forget(&written);
        for (size_t i = 0; i < n; i++) {
                Call *call = peer_claim_call(control_peer(next), waiting[i].number, false);

                assert_non_null(call);
                assert_false(control_go_on(next, call, "Nothing", false, waiting[i].request, waiting[i].size));
                assert_false(control_go_on(next, call, "Events", true, waiting[i].request, waiting[i].size));
                assert_false(control_go_on(next, call, "Stop", true, (const uint8_t *) "\xff", 1));
                assert_true(control_go_on(next, call, "Events", false, waiting[i].request, waiting[i].size));
        }
        follow(&h, next);
        assert_int_equal(h.n_done, 0);
        publish(&h);
        turn(&h);
        assert_int_equal(h.status, STATUS_OK);
        assert_int_equal(h.n_done, MANY + 1);
        publish(&h);
        turn(&h);
        assert_int_equal(h.n_done, MANY + 1);
        expect_status(&h);
        close_handover(&h);
}

/* A call that nobody goes on with is answered all the same, and so is one that came while nobody looked. */
static void test_half_open(void **state) {
        Written written = { 0 };
        Control *next;
        Handover h;

        (void) state;
        open_handover(&h, ROLE_READ);
        ask_events(&h);
        turn(&h);
        write_down(&h, 2, &written);
        assert_int_equal(take_up(&h, &written, &next), 0);
        forget(&written);
        follow(&h, next);
        assert_int_equal(h.n_done, 1);
        assert_int_equal(h.status, STATUS_INTERNAL);
        publish(&h); /* which ends it where it waited, too */
        expect_status(&h);
        assert_int_equal(h.n_done, 2);
        close_handover(&h);
}

/* What is told later replaces what was told before; descriptors that are not told again are those it has. */
static void test_again(void **state) {
        Written written[3] = { 0 };
        Waiting waiting[2];
        Control *next;
        Handover h;

        (void) state;
        open_handover(&h, ROLE_OPERATE);
        for (size_t i = 0; i < ARRAY_SIZE(written); i++) {
                write_down(&h, i == 1 ? 0 : 2, &written[i]);
                if (i + 1 < ARRAY_SIZE(written))
                        ask_events(&h);
                turn(&h);
        }
        assert_int_equal(note_waiting(&h, waiting, 2), 2);
        assert_int_equal(take_up(&h, &written[0], &next), 0);
        for (size_t i = 1; i < ARRAY_SIZE(written); i++)
                assert_int_equal(control_restore_again(next, written[i].state, PREFIX, &written[i].manifest), 0);
        for (size_t i = 0; i < 2; i++)
                assert_true(control_go_on(next, peer_claim_call(control_peer(next), waiting[i].number, false),
                                          "Events", false, waiting[i].request, waiting[i].size));
        for (size_t i = 0; i < ARRAY_SIZE(written); i++)
                forget(&written[i]);
        follow(&h, next);
        publish(&h);
        turn(&h);
        assert_int_equal(h.n_done, 2);
        expect_status(&h);
        close_handover(&h);
}

/* ---- what cannot be ---- */

typedef Baton__Handover__Peer State;

static void another_side(State *s) {
        s->side = 1;
}

static void no_lane(State *s) {
        baton__handover__peer_lane__free_unpacked(s->lane, NULL);
        s->lane = NULL;
}

static void no_limits(State *s) {
        baton__handover__peer_limits__free_unpacked(s->limits, NULL);
        s->limits = NULL;
}

static void no_channels(State *s) {
        while (s->n_channels > 0)
                baton__handover__peer_channel__free_unpacked(s->channels[--s->n_channels], NULL);
}

static void of_no_use(State *s) {
        s->channels[0]->use = 99;
}

static void of_no_channel(State *s) {
        s->calls[0]->channel = 99;
}

static void one_twice(State *s) {
        s->calls[1]->id = s->calls[0]->id;
}

static void too_many_descriptors(State *s) {
        s->calls[0]->fds = MANIFEST_FDS_MAX + 1;
}

static void of_another_protocol(State *s) {
        s->remote->protocol = 9999;
}

/* Each is refused, nothing stays open, and the one that serves has noticed nothing. */
static void test_refused(void **state) {
        static const struct {
                void (*change)(State *state);
                size_t n_fds;
                int error;
        } cases[] = {
                { NULL, 0, -EPROTO },
                { NULL, 1, -EPROTO },
                { another_side, 2, -EPROTO },
                { no_lane, 2, -EPROTO },
                { no_limits, 2, -EPROTO },
                { no_channels, 2, -EPROTO },
                { of_no_use, 2, -EPROTO },
                { of_no_channel, 2, -EPROTO },
                { one_twice, 2, -EPROTO },
                { too_many_descriptors, 2, -EPROTO },
                { of_another_protocol, 2, -EPROTONOSUPPORT },
        };
        Handover h;

        (void) state;
        open_handover(&h, ROLE_READ);
        ask_events(&h);
        ask_events(&h);
        turn(&h);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                int before = fd_count();
                Written written = { 0 };
                Control *next;

                write_down(&h, cases[i].n_fds, &written);
                if (cases[i].change)
                        cases[i].change(written.state);
                if (take_up(&h, &written, &next) != cases[i].error)
                        fail_msg("case %zu was not refused so", i);
                assert_null(next);
                forget(&written);
                assert_int_equal(fd_count(), before);
        }
        publish(&h);
        turn(&h);
        assert_int_equal(h.n_done, 2);
        close_handover(&h);
}

/* try() - these bytes as a state: it is taken up, or not; then it goes, and the connection does not end. */
static void try(Handover *h, const uint8_t *bytes, size_t size) {
        Written written = { 0 };
        Control *next;

        write_down(h, 2, &written);
        baton__handover__peer__free_unpacked(written.state, NULL);
        written.state = baton__handover__peer__unpack(NULL, size, bytes);
        if (written.state && take_up(h, &written, &next) == 0)
                (void) control_free(next);
        forget(&written);
}

static void test_changed(void **state) {
        static const uint8_t patterns[] = { 0x01, 0x80, 0xff };
        Written written = { 0 };
        uint8_t *bytes;
        Handover h;
        size_t size;

        (void) state;
        open_handover(&h, ROLE_READ);
        ask_events(&h);
        turn(&h);
        write_down(&h, 0, &written);
        size = baton__handover__peer__get_packed_size(written.state);
        bytes = malloc(size + 1);
        assert_non_null(bytes);
        (void) baton__handover__peer__pack(written.state, bytes);
        forget(&written);
        for (size_t i = 0; i < size; i++) {
                try(&h, bytes, i);
                for (size_t j = 0; j < ARRAY_SIZE(patterns); j++) {
                        bytes[i] ^= patterns[j];
                        try(&h, bytes, size);
                        bytes[i] ^= patterns[j];
                }
        }
        free(bytes);
        publish(&h);
        turn(&h);
        assert_int_equal(h.n_done, 1);
        expect_status(&h);
        close_handover(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_role),  TEST(test_waiting), TEST(test_half_open),
                TEST(test_again), TEST(test_refused), TEST(test_changed),
        };

        return test_run(tests, ARRAY_SIZE(tests));
}
