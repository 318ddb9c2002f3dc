/* SPDX-License-Identifier: Apache-2.0 */

/* baton fds: what is held for a runner across its instances: its sockets, and what it has stored. */

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/ask.h"
#include "client/output.h"
#include "client/status-text.h"
#include "common/clock.h"
#include "proto/message.h"

typedef Baton__Control__FdsResponse FdsResponse;

static const char *kind_name(const Baton__Control__HeldFd *fd) {
        static const char *const names[] = {
                [BATON__CONTROL__HELD_FD__KIND__SOCKET] = "socket",
                [BATON__CONTROL__HELD_FD__KIND__STORED] = "stored",
                [BATON__CONTROL__HELD_FD__KIND__CHECKPOINT] = "checkpoint",
                [BATON__CONTROL__HELD_FD__KIND__CLIENT] = "client",
        };

        return (size_t) fd->kind < ARRAY_SIZE(names) ? names[fd->kind] : "unknown";
}

static void print_json(const char *name, const FdsResponse *response) {
        json_t *fds = json_array();
        json_auto_t *all = NULL;

        for (size_t i = 0; i < response->n_fds; i++) {
                const Baton__Control__HeldFd *fd = response->fds[i];
                json_t *object = json_pack("{s:s, s:s, s:s, s:I}", "kind", kind_name(fd), "name", fd->name, "type",
                                           fd->type, "time_us", (json_int_t) fd->time_us);

                if (object && fd->fd > 0)
                        (void) json_object_set_new(object, "fd", json_integer(fd->fd));
                if (object && *fd->address)
                        (void) json_object_set_new(object, "address", json_string(fd->address));
                if (object && fd->no_poll)
                        (void) json_object_set_new(object, "no_poll", json_true());
                (void) json_array_append_new(fds, object);
        }
        all = json_pack("{s:i, s:s, s:I, s:o}", "version", STATUS_JSON_VERSION, "name", name, "store_max",
                        (json_int_t) response->store_max, "fds", fds);
        if (all && response->unlisted > 0)
                (void) json_object_set_new(all, "unlisted", json_integer(response->unlisted));
        if (all)
                (void) output_json(stdout, all);
}

static void print_table(const FdsResponse *response) {
        int name_width = 4, type_width = 4;

        for (size_t i = 0; i < response->n_fds; i++) {
                name_width = MAX(name_width, (int) strlen(response->fds[i]->name));
                type_width = MAX(type_width, (int) strlen(response->fds[i]->type));
        }
        (void) printf("%4s  %-10s  %-*s  %-*s  %-19s  %s\n", "FD", "KIND", name_width, "NAME", type_width, "TYPE",
                      "SINCE", "ADDRESS");
        for (size_t i = 0; i < response->n_fds; i++) {
                const Baton__Control__HeldFd *fd = response->fds[i];
                char since[STATUS_TEXT_MAX], number[16] = "-";

                if (fd->fd > 0)
                        (void) snprintf(number, sizeof(number), "%u", fd->fd);
                status_time_text(fd->time_us, since);
                (void) printf("%4s  %-10s  ", number, kind_name(fd));
                (void) output_text(stdout, fd->name, strlen(fd->name)); /* of a checkpoint it is the runner's */
                (void) printf("%*s  %-*s  %.19s  ", name_width - (int) strlen(fd->name), "", type_width, fd->type,
                              since);
                (void) output_text(stdout, *fd->address ? fd->address : "-", strlen(*fd->address ? fd->address : "-"));
                (void) fputc('\n', stdout);
        }
        if (response->unlisted > 0)
                (void) printf("%u more of the checkpoint are not listed\n", response->unlisted);
}

static int fds(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON, 1, 1, "the name of a runner is" };
        Baton__Control__FdsRequest request = BATON__CONTROL__FDS_REQUEST__INIT;
        _cleanup_message_ FdsResponse *response = NULL;
        Ask ask;

        if (ask_open(&ask, &command_fds, &syntax, argc, argv) < 0)
                return ask.code;
        request.name = ask.options.operands[0];
        response = ask_call(&ask, "Fds", &request.base, &baton__control__fds_response__descriptor, request.name, NULL);
        if (response && ask.options.json)
                print_json(request.name, response);
        else if (response)
                print_table(response);
        return ask_close(&ask);
}

const Command command_fds = {
        .name = "fds",
        .summary = "the sockets of a runner, and the descriptors that it has stored",
        .help = "Usage: baton fds NAME [OPTION...]\n"
                "\n"
                "Prints the descriptors that are held for the runner across its instances, supervisors and their\n"
                "crashes: the sockets of its configuration and what it has stored by FDSTORE=1, each with the number\n"
                "under which the next instance is passed it; what its last checkpoint holds, which goes to the\n"
                "process that takes its place; and the lanes of attached clients.\n"
                "\n"
                "Not listed is what belongs to the process that runs, and ends with it: its pipes and its own lane\n"
                "and channels, which supervisor and keeper have the other ends of.\n"
                "\n"
                "  --json                  one JSON object; docs/status.md has its members\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton fds web\n",
        .run = fds,
};
