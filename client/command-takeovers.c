/* SPDX-License-Identifier: Apache-2.0 */

/* baton takeovers: how one supervisor followed another, or did not. */

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/ask.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/status-text.h"
#include "common/clock.h"
#include "proto/message.h"

typedef Baton__Control__TakeoverRecord Record;

/* milliseconds() - or "-" for none. */
static void milliseconds(uint64_t us, char text[STATUS_TEXT_MAX]) {
        if (us > 0)
                (void) snprintf(text, STATUS_TEXT_MAX, "%.1f ms", (double) us / USEC_PER_MSEC);
        else
                (void) snprintf(text, STATUS_TEXT_MAX, "-");
}

/* pair() - "1 > 2", or what there is of it. */
static void pair(uint32_t former, uint32_t next, char text[STATUS_TEXT_MAX]) {
        if (former > 0 && next > 0)
                (void) snprintf(text, STATUS_TEXT_MAX, "%u > %u", former, next);
        else
                (void) snprintf(text, STATUS_TEXT_MAX, "%u", former > 0 ? former : next);
}

/* phases() - "check 0.1, start 4.0 ms". */
static void phases(const Record *record, char *text, size_t size) {
        size_t n = 0;

        *text = '\0';
        for (size_t i = 0; i < record->n_phases_us && n < size; i++)
                if (record->phases_us[i] > 0)
                        n += (size_t) snprintf(text + n, size - n, "%s%s %.1f", n ? ", " : "",
                                               status_takeover_phase((int) i),
                                               (double) record->phases_us[i] / USEC_PER_MSEC);
        if (n > 0 && n < size)
                (void) snprintf(text + n, size - n, " ms");
}

static void print_row(const Record *record) {
        char time[STATUS_TEXT_MAX], generations[STATUS_TEXT_MAX], pids[STATUS_TEXT_MAX], took[STATUS_TEXT_MAX],
                pause[STATUS_TEXT_MAX], text[512];

        status_time_text(record->time_us, time);
        pair(record->former_generation, record->generation, generations);
        pair((uint32_t) record->former_pid, (uint32_t) record->pid, pids);
        milliseconds(record->total_us, took);
        milliseconds(record->pause_us, pause);
        (void) printf("%s  %-11s  %-10s  %-17s  %9s  %8s  ", time, status_takeover_outcome((int) record->outcome),
                      generations, pids, took, pause);
        if (*record->reason)
                status_takeover_reason(record, text, sizeof(text));
        else
                phases(record, text, sizeof(text));
        (void) output_text(stdout, text, strlen(text));
        (void) fputc('\n', stdout);
}

static void print_table(const Baton__Control__TakeoversResponse *response) {
        if (response->n_records == 0)
                return;
        (void) printf("%-27s  %-11s  %-10s  %-17s  %9s  %8s  %s\n", "TIME", "OUTCOME", "GENERATION", "PID", "TOOK",
                      "PAUSE", "WHY, OR PHASES");
        for (size_t i = 0; i < response->n_records; i++)
                print_row(response->records[i]);
}

static void print_json(const Record *record) {
        json_auto_t *object = status_takeover_json(record);

        if (object && json_object_set_new(object, "version", json_integer(STATUS_JSON_VERSION)) == 0)
                (void) output_json(stdout, object);
}

static int takeovers(int argc, char **argv) {
        static const ControlSyntax syntax = { CONTROL_TAKES_JSON, 0, 0, "" };
        Baton__Control__TakeoversRequest request = BATON__CONTROL__TAKEOVERS_REQUEST__INIT;
        _cleanup_message_ Baton__Control__TakeoversResponse *response = NULL;
        Ask ask;

        if (ask_open(&ask, &command_takeovers, &syntax, argc, argv) < 0)
                return ask.code;
        response = ask_call(&ask, "Takeovers", &request.base, &baton__control__takeovers_response__descriptor, NULL,
                            NULL);
        if (response && !ask.options.json)
                print_table(response);
        for (size_t i = 0; response && ask.options.json && i < response->n_records; i++)
                print_json(response->records[i]);
        return ask_close(&ask);
}

const Command command_takeovers = {
        .name = "takeovers",
        .summary = "how supervisors followed each other",
        .help = "Usage: baton takeovers [OPTION...]\n"
                "\n"
                "Prints the last 32 takeovers, also those that were rolled back, and recoveries after a supervisor\n"
                "died, oldest first; also those before the present supervisor.\n"
                "\n"
                "  --json                  one JSON object for each; docs/status.md has its members\n"
                "  --socket=PATH           the control socket ($BATON_SOCKET, else /run/baton/control or the user's)\n"
                "  --help\n"
                "\n"
                "OUTCOME: under_way; done; checked (a rehearsal that went well); rolled_back (nothing has changed);\n"
                "cut_off (whoever was to serve died over it); recovered (a supervisor died, the next one goes on);\n"
                "went_back (the same, by the program that served before a takeover).\n"
                "\n"
                "Example: baton takeovers --json | jq -r 'select(.outcome == \"rolled_back\").reason'\n",
        .run = takeovers,
};
