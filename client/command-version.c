/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton version: which release, of which commit, speaking which protocol, and what this kernel offers it: all that a
 * report of a problem needs to say.
 */

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/options.h"
#include "client/output.h"
#include "common/feature.h"
#include "common/version.h"
#include "proto/peer.h"

static int print_json(void) {
        json_t *features = json_object();
        json_t *all;
        int r;

        for (Feature f = 0; f < _FEATURE_N; f++)
                (void) json_object_set_new(features, feature_name(f), json_boolean(feature_enabled(f)));
        all = json_pack("{s:s, s:s, s:{s:i, s:i}, s:o}", "version", version_release(), "commit", version_commit(),
                        "protocol", "min", (int) PROTOCOL_MIN, "max", (int) PROTOCOL_MAX, "features", features);
        r = output_json(stdout, all);
        json_decref(all);
        return r;
}

static void print_text(void) {
        (void) printf("baton %s\ncommit %s\nprotocol %u-%u\n", version_release(), version_commit(), PROTOCOL_MIN,
                      PROTOCOL_MAX);
        for (Feature f = 0; f < _FEATURE_N; f++)
                (void) printf("feature %s: %s\n", feature_name(f), feature_enabled(f) ? "yes" : "no");
}

/* check_environment() - the keeper refuses to start with such a word; here it is worth a line. */
static void check_environment(void) {
        const char *unknown = feature_unknown();

        if (unknown)
                output_error("version: BATON_DISABLE names no such feature: %s", unknown);
}

static int run(int argc, char **argv) {
        static const struct option options[] = {
                { "json", no_argument, NULL, 'j' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        char error[OPTIONS_ERROR_MAX] = "";
        bool json = false;
        int c, r = 0;

        options_begin();
        while ((c = options_next(argc, argv, options, error)) >= 0) {
                if (c == 'h')
                        return command_help(&command_version);
                if (c == '?')
                        return command_usage(&command_version, error);
                json = true;
        }
        if (optind < argc)
                return command_usage(&command_version, "it takes no arguments");
        check_environment();
        if (json)
                r = print_json();
        else
                print_text();
        if (r < 0)
                output_error("version: %s", strerror(-r));
        return r < 0 ? EXIT_CODE_BROKEN : command_output_end("version");
}

const Command command_version = {
        .name = "version",
        .summary = "version, commit, protocol, features of this kernel",
        .help = "Usage: baton version [--json]\n"
                "\n"
                "  --json   one JSON object\n"
                "  --help\n"
                "\n"
                "A feature is something newer of the kernel's; without it baton does the same in another way.\n"
                "\n"
                "Example: baton version --json | jq .features\n",
        .run = run,
};
