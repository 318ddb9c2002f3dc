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
#include "supervisor/keeper/launch.h"

enum { EXIT_USAGE = 2 };

static const char help[] =
        "Usage: baton-keeper --private=FD [OPTION...]\n"
        "       baton-keeper --runtime-dir=DIR --state-dir=DIR --log-dir=DIR --socket=PATH [OPTION...] [CONFIG...]\n"
        "\n"
        "Starts baton-supervisor and is the parent of it and of all its runners. Not meant to be called by hand:\n"
        "'baton supervise' becomes this program.\n"
        "\n"
        "  --private=FD              a connected unix stream socket, the lane of the one client; its end ends the "
        "tree\n"
        "  --runtime-dir=DIR         of a daemon, absolute as all of these; made if need be: lock, bootstrap sockets\n"
        "  --state-dir=DIR, --log-dir=DIR\n"
        "  --socket=PATH             the control socket\n"
        "  --stop-timeout=DURATION   what the supervisor has for stopping its runners (10s)\n"
        "  --hang-timeout=DURATION   a supervisor that owes an answer for so long is killed and followed by a new one "
        "(30s)\n"
        "  --healthy-time=DURATION   after serving so long, a supervisor's death is the first in a row (1min)\n"
        "  --restart-delay=DURATION  before the second start in a row; each after that doubles it (100ms)\n"
        "  --continue=FD[,FD], --rehearse=FD,FD\n"
        "                            goes on with what a keeper in this process has left, or tries it (baton "
        "takeover\n"
        "                            --keeper)\n"
        "  --help, --version\n"
        "\n"
        "Environment: BATON_LIBEXEC (where baton-supervisor is), BATON_LOG_LEVEL, BATON_DISABLE (features to do "
        "without);\n"
        "of a daemon NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID (see sd_notify(3)).\n"
        "\n"
        "Signals: TERM and INT stop the tree; HUP makes a daemon load its configuration again, and starts a "
        "supervisor\n"
        "where none runs any more; USR1 kills the supervisor (baton takeover --force), which is followed by a new "
        "one.\n"
        "\n"
        "Example, with the lane at descriptor 3: baton-keeper --private=3 --stop-timeout=5s\n";

static int usage(const char *text, const char *value) {
        log_error("%s%s; see baton-keeper --help", text, value);
        return EXIT_USAGE;
}

/* What an argument led to: go on with keeper_run(), or exit with a status. */
enum { RUN = -1 };

static const struct option long_options[] = {
        { "private", required_argument, NULL, 'p' },
        { "runtime-dir", required_argument, NULL, 'r' },
        { "state-dir", required_argument, NULL, 's' },
        { "log-dir", required_argument, NULL, 'l' },
        { "socket", required_argument, NULL, 'c' },
        { "stop-timeout", required_argument, NULL, 't' },
        { "hang-timeout", required_argument, NULL, 'a' },
        { "healthy-time", required_argument, NULL, 'y' },
        { "restart-delay", required_argument, NULL, 'd' },
        { "continue", required_argument, NULL, 'C' },
        { "rehearse", required_argument, NULL, 'R' },
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'v' },
        { NULL, 0, NULL, 0 },
};

/* set_duration() - 0, or what usage() says. */
static int set_duration(const char *option, const char *value, uint64_t *duration) {
        char text[96];

        if (parse_duration(value, duration) == 0)
                return 0;
        (void) snprintf(text, sizeof(text), "--%s wants a duration such as 10s or 500ms, not ", option);
        return usage(text, value);
}

static int set_private(const char *value, int *fd) {
        if (parse_fd(value, fd) < 0 || *fd < 3)
                return usage("--private wants the number, 3 or above, of an open descriptor, not ", value);
        return 0;
}

/* What of another keeper we were given. */
typedef struct Inheritance {
        int option; /* 0: nothing */
        int fds[2];
} Inheritance;

static int set_inheritance(int option, const char *value, Inheritance *inheritance) {
        char first[16];
        size_t n = strcspn(value, ",");

        *inheritance = (Inheritance){ option, { -1, -1 } };
        (void) snprintf(first, sizeof(first), "%.*s", (int) MIN(n, sizeof(first) - 1), value);
        if (parse_fd(first, &inheritance->fds[0]) < 0 ||
            (value[n] && parse_fd(value + n + 1, &inheritance->fds[1]) < 0))
                return usage("--continue and --rehearse want numbers of open descriptors, not ", value);
        return 0;
}

/* set() - 0, or what usage() says. */
static int set(KeeperOptions *options, Inheritance *inheritance, int option, const char *value) {
        switch (option) {
        case 'C':
        case 'R':
                return set_inheritance(option, value, inheritance);
        case 'p':
                return set_private(value, &options->private_fd);
        case 'r':
                options->place.runtime_dir = value;
                return 0;
        case 's':
                options->place.state_dir = value;
                return 0;
        case 'l':
                options->place.log_dir = value;
                return 0;
        case 'c':
                options->place.socket = value;
                return 0;
        case 't':
                return set_duration("stop-timeout", value, &options->stop_timeout_us);
        case 'a':
                return set_duration("hang-timeout", value, &options->hang_timeout_us);
        case 'y':
                return set_duration("healthy-time", value, &options->ladder.healthy_us);
        case 'd':
                return set_duration("restart-delay", value, &options->ladder.delay_us);
        default:
                return EXIT_USAGE;
        }
}

static int check_daemon(const KeeperOptions *options) {
        const PlaceOptions *place = &options->place;
        const char *const paths[] = { place->runtime_dir, place->state_dir, place->log_dir, place->socket };

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
                if (!paths[i] || *paths[i] != '/')
                        return usage(
                                "without --private=FD it wants --runtime-dir, --state-dir, --log-dir and --socket, "
                                "absolute paths",
                                "");
        for (size_t n = 0; options->configs[n]; n++)
                if (n >= LAUNCH_CONFIGS_MAX)
                        return usage("too many configurations, name a directory that holds them, not ",
                                     options->configs[n]);
        return RUN;
}

static int check(const KeeperOptions *options) {
        if (options->private_fd < 0)
                return check_daemon(options);
        if (*options->configs)
                return usage("no argument is expected: ", *options->configs);
        if (!fd_is_unix_stream(options->private_fd))
                return usage("--private wants a connected unix stream socket", "");
        return RUN;
}

/* own_arguments() - what we were called with, but for what another keeper has put in front of it. */
static char *const *own_arguments(char **argv, const Inheritance *inheritance) {
        if (inheritance->option == 0)
                return argv;
        argv[1] = argv[0];
        return argv + 1;
}

static int parse(int argc, char **argv, KeeperOptions *ret_options, Inheritance *inheritance) {
        int c, r;

        while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0) {
                if (c == 'h')
                        return fputs(help, stdout) < 0 || fflush(stdout) != 0;
                if (c == 'v')
                        return printf("baton-keeper %s (%s)\n", version_release(), version_commit()) < 0 ||
                               fflush(stdout) != 0;
                r = set(ret_options, inheritance, c, optarg);
                if (r != 0)
                        return r;
        }
        ret_options->configs = argv + optind;
        ret_options->argv = own_arguments(argv, inheritance);
        return check(ret_options);
}

int main(int argc, char **argv) {
        KeeperOptions options = KEEPER_OPTIONS_NULL;
        Inheritance inheritance = { 0 };
        const char *unknown = feature_unknown();
        int status;

        log_open("baton-keeper");
        if (unknown)
                return usage("BATON_DISABLE names no such feature: ", unknown);
        status = parse(argc, argv, &options, &inheritance);
        if (status != RUN)
                return status;
        if (inheritance.option == 'R')
                return keeper_rehearse(&options, inheritance.fds[0], inheritance.fds[1]);
        if (inheritance.option == 'C')
                return keeper_continue(&options, inheritance.fds[0], inheritance.fds[1]);
        return keeper_run(&options);
}
