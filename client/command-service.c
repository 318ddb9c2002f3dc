/* SPDX-License-Identifier: Apache-2.0 */

/* baton service: the service of a native runner, shown and driven by hand. */

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "proto/message.h"
#include "proto/service.h"

typedef Baton__Control__ServiceInfoResponse Info;

enum { VERSION_JSON = 1 };

/* describe() - the service's own words: JSON, where they are, else a text. */
static json_t *describe(const char *text) {
        json_t *value = *text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;

        return value ? value : json_string(text);
}

static void print_info_json(const Info *info) {
        ServiceState state = service_state_from_wire(info->state);
        char id[96];
        json_auto_t *service = NULL, *object = NULL;

        (void) snprintf(id, sizeof(id), "%.64s:%" PRIx64, info->name, info->instance);
        service = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:i, s:b, s:b, s:i, s:i, s:o}", "version", info->software,
                            "id", id, "supervisor", info->supervisor, "state", service_state_name(state), "code",
                            (int) state, "last_event", (json_int_t) info->last_event, "pid", info->pid, "registered",
                            info->service, "saves", info->saves, "clients", (int) info->clients, "calls",
                            (int) info->calls, "description", describe(info->description));
        if (service && info->saves)
                (void) json_object_set_new(service, "state_version", json_integer((json_int_t) info->version));
        if (service && info->saves)
                (void) json_object_set_new(service, "state_version_min", json_integer((json_int_t) info->version_min));
        if (service && *info->under_way)
                (void) json_object_set_new(service, "under_way", json_string(info->under_way));
        object = json_pack("{s:i, s:s, s:O}", "version", VERSION_JSON, "name", info->name, "service", service);
        if (object)
                (void) output_json(stdout, object);
}

static void print_info(const Info *info) {
        (void) printf("%s: %s%s%s%s\n", info->name, service_state_name(service_state_from_wire(info->state)),
                      *info->under_way ? ", " : "", info->under_way, *info->under_way ? " is under way" : "");
        (void) printf("  version      %s\n  id           %s:%" PRIx64 ", pid %d\n  supervisor   %s\n", info->software,
                      info->name, info->instance, info->pid, info->supervisor);
        if (!info->service)
                (void) printf("  service      none is registered: it keeps its state to itself\n");
        else if (info->saves)
                (void) printf("  state        version %u, restores %u and later\n", info->version, info->version_min);
        (void) printf("  clients      %u, open calls %u\n", info->clients, info->calls);
        if (*info->description)
                (void) printf("  description  %s\n", info->description);
}

static void show(Ask *ask, char *name) {
        Baton__Control__ServiceInfoRequest request = BATON__CONTROL__SERVICE_INFO_REQUEST__INIT;
        _cleanup_message_ Info *info = NULL;

        request.name = name;
        info = ask_call(ask, "ServiceInfo", &request.base, &baton__control__service_info_response__descriptor, name,
                        NULL);
        if (info && ask->options.json)
                print_info_json(info);
        else if (info)
                print_info(info);
}

static void drive(Ask *ask, char *name, char *event) {
        Baton__Control__ServiceRequest request = BATON__CONTROL__SERVICE_REQUEST__INIT;
        _cleanup_message_ Baton__Control__ServiceResponse *response = NULL;
        const char *state;

        request.name = name;
        request.event = event;
        response = ask_call(ask, "Service", &request.base, &baton__control__service_response__descriptor, name, NULL);
        if (!response)
                return;
        state = service_state_name(service_state_from_wire(response->state));
        if (ask->options.json) {
                json_t *sent = json_array();
                json_auto_t *object = NULL;

                for (size_t i = 0; i < response->n_sent; i++)
                        (void) json_array_append_new(sent, json_string(response->sent[i]));
                object = json_pack("{s:i, s:s, s:s, s:o}", "version", VERSION_JSON, "name", name, "state", state,
                                   "sent", sent);
                if (object)
                        (void) output_json(stdout, object);
                return;
        }
        (void) printf("%s: %s", name, state);
        for (size_t i = 0; i < response->n_sent; i++)
                (void) printf("%s%s", i ? ", " : ", after ", response->sent[i]);
        (void) printf("%s\n", response->n_sent ? "" : " already");
}

static int service(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON | CONTROL_TAKES_TIMEOUT, 2, 2,
                                              "NAME and what to do with it are" };
        Ask ask;

        if (ask_open(&ask, &command_service, &syntax, argc, argv) < 0)
                return ask.code;
        if (strcmp(ask.options.operands[1], "info") == 0)
                show(&ask, ask.options.operands[0]);
        else
                drive(&ask, ask.options.operands[0], ask.options.operands[1]);
        return ask_close(&ask);
}

const Command command_service = {
        .name = "service",
        .summary = "show or drive the service of a native runner",
        .help = "Usage: baton service NAME info|mount|start|stop|takeover|exit [OPTION...]\n"
                "\n"
                "What the service of a native runner says of itself, or one step of its life by hand:\n"
                "\n"
                "  info      version, id, supervisor, state, and its own description\n"
                "  mount     INIT to READY: it loads what it serves\n"
                "  takeover  INIT to READY: it restores what its predecessor has left\n"
                "  start     READY to RUNNING\n"
                "  stop      to STOPPED, in as many steps as it takes; the runner ends\n"
                "  exit      to STOPPED, leaving what is mounted; the runner ends\n"
                "\n"
                "A step that the table of states does not have is refused; stop and exit are done where nothing is\n"
                "left to do. What comes after the end is the restart policy's.\n"
                "\n"
                "  --timeout=DURATION      wait at most so long; what was begun goes on; exit code 20\n"
                "  --json                  one JSON object\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "Example: baton service db info --json\n",
        .run = service,
};
