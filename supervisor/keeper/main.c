/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton-keeper: `baton supervise' becomes this program, whose pid is the tree's. Parses its arguments and goes.
 */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "common/fd.h"
#include "common/feature.h"
#include "common/log.h"
#include "common/parse.h"
#include "common/version.h"
#include "supervisor/keeper/keeper.h"

enum { EXIT_USAGE = 2 };

static const char help[] =
        "Usage: baton-keeper --private=FD [--stop-timeout=DURATION]\n"
        "\n"
        "Starts baton-supervisor and is the parent of it and of all its runners. Not meant to be called by hand:\n"
        "`baton supervise' becomes this program.\n"
        "\n"
        "  --private=FD              a connected unix stream socket, the lane of the one client; its end ends the "
        "tree\n"
        "  --stop-timeout=DURATION   what the supervisor has for stopping its runners (10s)\n"
        "  --help, --version\n"
        "\n"
        "Environment: BATON_LIBEXEC (where baton-supervisor is), BATON_LOG_LEVEL, BATON_DISABLE (features to do "
        "without).\n"
        "\n"
        "Example, with the lane at descriptor 3: baton-keeper --private=3 --stop-timeout=5s\n";

static int usage(const char *text, const char *value) {
        log_error("%s%s; see baton-keeper --help", text, value);
        return EXIT_USAGE;
}

/* What an argument led to: go on with keeper_run(), or exit with a status. */
enum { RUN = -1 };

static int parse(int argc, char **argv, KeeperOptions *ret_options) {
        static const struct option options[] = {
                { "private", required_argument, NULL, 'p' },
                { "stop-timeout", required_argument, NULL, 't' },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },
                { NULL, 0, NULL, 0 },
        };
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                switch (c) {
                case 'p':
                        if (parse_fd(optarg, &ret_options->private_fd) < 0 || ret_options->private_fd < 3)
                                return usage("--private wants the number, 3 or above, of an open descriptor, not ",
                                             optarg);
                        break;
                case 't':
                        if (parse_duration(optarg, &ret_options->stop_timeout_us) < 0)
                                return usage("--stop-timeout wants a duration such as 10s or 500ms, not ", optarg);
                        break;
                case 'h':
                        return fputs(help, stdout) < 0 || fflush(stdout) != 0;
                case 'v':
                        return printf("baton-keeper %s (%s)\n", version_release(), version_commit()) < 0 ||
                               fflush(stdout) != 0;
                default:
                        return EXIT_USAGE;
                }
        }
        if (optind < argc)
                return usage("no argument is expected: ", argv[optind]);
        if (ret_options->private_fd < 0)
                return usage("--private=FD is missing", "");
        if (!fd_is_unix_stream(ret_options->private_fd))
                return usage("--private wants a connected unix stream socket", "");
        return RUN;
}

int main(int argc, char **argv) {
        KeeperOptions options = { .private_fd = -1, .stop_timeout_us = KEEPER_STOP_TIMEOUT_US };
        const char *unknown = feature_unknown();
        int status;

        log_open("baton-keeper");
        if (unknown)
                return usage("BATON_DISABLE names no such feature: ", unknown);
        status = parse(argc, argv, &options);
        return status == RUN ? keeper_run(&options) : status;
}
