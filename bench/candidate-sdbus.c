/* SPDX-License-Identifier: Apache-2.0 */

/* Candidate sdbus: systemd's D-Bus library from peer to peer, no daemon between; byte arrays, asynchronous calls. */

#include <stdlib.h>
#include <string.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-id128.h>
#include <unistd.h>

#include "bench/candidate.h"

#define NOBODY UINT64_C(3600000000) /* microseconds: no call takes that long */

static void check(int r, const char *what) {
        if (r < 0)
                die("%s: %s", what, strerror(-r));
}

static const char *version(void) {
        return "libsystemd " LIBSYSTEMD_VERSION;
}

/* bus_on() - a bus over one end of the pair. */
static sd_bus *bus_on(int fd, bool server) {
        sd_id128_t id;
        sd_bus *bus;

        check(sd_bus_new(&bus), "bus");
        check(sd_bus_set_fd(bus, dup(fd), dup(fd)), "descriptor");
        if (server) {
                check(sd_id128_randomize(&id), "id");
                check(sd_bus_set_server(bus, 1, id), "server");
        }
        check(sd_bus_set_anonymous(bus, 1), "anonymous");
        check(sd_bus_start(bus), "start");
        return bus;
}

/* ---- server ---- */

static size_t answer_size;

static int on_message(sd_bus_message *message, void *userdata, sd_bus_error *error) {
        sd_bus_message *reply = NULL;
        const void *data;
        size_t size;

        (void) userdata;
        (void) error;
        if (!sd_bus_message_is_method_call(message, "bench.Echo", "Echo"))
                return 0;
        check(sd_bus_message_read_array(message, 'y', &data, &size), "read");
        check(sd_bus_message_new_method_return(message, &reply), "reply");
        check(sd_bus_message_append_array(reply, 'y', data, size < answer_size ? size : answer_size), "append");
        check(sd_bus_send(sd_bus_message_get_bus(message), reply, NULL), "send");
        (void) sd_bus_message_unref(reply);
        return 1;
}

static void serve(const CandidateOptions *options, const Meeting *meeting) {
        sd_bus *bus = bus_on(meeting->fd, true);

        answer_size = options->answer;
        check(sd_bus_add_filter(bus, NULL, on_message, NULL), "filter");
        for (;;) {
                int r = sd_bus_process(bus, NULL);

                if (r < 0 || (r == 0 && sd_bus_wait(bus, UINT64_MAX) < 0))
                        break; /* the client has gone */
        }
        _exit(EXIT_SUCCESS);
}

/* ---- client ---- */

typedef struct Client {
        sd_bus *bus;
        Exchange *exchange;
} Client;

static Client client;

static void send_call(size_t slot);

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *error) {
        const void *data;
        size_t size;

        (void) error;
        if (sd_bus_message_is_method_error(reply, NULL))
                die("a call failed: %s", sd_bus_message_get_error(reply)->message);
        check(sd_bus_message_read_array(reply, 'y', &data, &size), "read");
        exchange_answered(client.exchange, (size_t) userdata, size);
        send_call((size_t) userdata);
        return 1;
}

static void send_call(size_t slot) {
        sd_bus_message *message = NULL;

        if (!exchange_next(client.exchange, slot))
                return;
        check(sd_bus_message_new_method_call(client.bus, &message, NULL, "/", "bench.Echo", "Echo"), "message");
        check(sd_bus_message_append_array(message, 'y', client.exchange->payload, client.exchange->options->size),
              "append");
        check(sd_bus_call_async(client.bus, NULL, message, on_reply, (void *) slot, NOBODY), "call");
        (void) sd_bus_message_unref(message);
}

static void client_open(const CandidateOptions *options, Meeting *meeting) {
        (void) options;
        client.bus = bus_on(meeting->fd, false);
}

static void client_run(Exchange *exchange) {
        client.exchange = exchange;
        for (size_t slot = 0; slot < exchange->options->window; slot++)
                send_call(slot);
        while (!exchange_is_over(exchange)) {
                int r = sd_bus_process(client.bus, NULL);

                check(r, "process");
                if (r == 0)
                        check(sd_bus_wait(client.bus, UINT64_MAX), "wait");
        }
}

static void client_close(void) {
        sd_bus_close(client.bus);
        (void) sd_bus_unref(client.bus);
}

int main(int argc, char **argv) {
        static const Candidate candidate = { "sdbus", version, serve, client_open, client_run, client_close };

        return candidate_main(&candidate, argc, argv);
}
