/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton supervise: becomes baton-keeper, the root of a tree of runners, without changing its pid: what started us (a
 * library, a service manager, a shell) goes on watching the same process. Options are checked here, for a message with
 * the command's name, and passed on; where things are is decided here, by the rules that clients use too.
 */

#include <errno.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/libexec.h"
#include "client/options.h"
#include "client/output.h"
#include "common/parse.h"
#include "common/places.h"

#define KEEPER "baton-keeper"

/* What the keeper is given; strings are ours or argv's. */
typedef struct SuperviseOptions {
        const char *private_fd, *stop_timeout; /* as they were given; NULL: not */
        const char *runtime_dir, *state_dir, *log_dir;
        char **configs;
        size_t n_configs;
} SuperviseOptions;

/* find_places() - 0, or an exit code. */
static int find_places(const SuperviseOptions *options, char paths[4][PLACES_PATH_MAX]) {
        int r;

        r = places_runtime(options->runtime_dir, paths[0]);
        if (r == 0)
                r = places_state(options->state_dir, paths[1]);
        if (r == 0)
                r = places_log(options->log_dir, paths[1], paths[2]);
        if (r == 0)
                r = places_socket(options->runtime_dir, paths[3]);
        if (r == 0)
                return 0;
        output_error("supervise: cannot name its directories: %s", strerror(-r));
        return EXIT_CODE_BROKEN;
}

static int become_keeper(const SuperviseOptions *options) {
        char paths[4][PLACES_PATH_MAX];
        const char *fixed[] = {
                KEEPER,
                options->stop_timeout ? "--stop-timeout" : NULL,
                options->stop_timeout,
                options->private_fd ? "--private" : "--runtime-dir",
                options->private_fd ? options->private_fd : paths[0],
        };
        const char *places[] = { "--state-dir", paths[1], "--log-dir", paths[2], "--socket", paths[3], "--" };
        _cleanup_free_ char **arguments = NULL;
        size_t n = 0;
        int r;

        r = options->private_fd ? 0 : find_places(options, paths);
        if (r != 0)
                return r;
        arguments = calloc(ARRAY_SIZE(fixed) + ARRAY_SIZE(places) + options->n_configs + 1, sizeof(*arguments));
        if (!arguments)
                return output_error("supervise: %s", strerror(ENOMEM)), EXIT_CODE_BROKEN;
        for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
                if (fixed[i])
                        arguments[n++] = (char *) (uintptr_t) fixed[i];
        for (size_t i = 0; !options->private_fd && i < ARRAY_SIZE(places); i++)
                arguments[n++] = (char *) (uintptr_t) places[i];
        for (size_t i = 0; i < options->n_configs; i++)
                arguments[n++] = options->configs[i];
        return libexec_execute("supervise", KEEPER, arguments);
}

/* set() - NULL, or what is wrong. */
static const char *set(SuperviseOptions *options, int option, const char *value) {
        uint64_t duration;
        int fd;

        if (option == 'p' && (parse_fd(value, &fd) < 0 || fd <= STDERR_FILENO))
                return "--private wants an open descriptor's number above 2";
        if (option == 't' && parse_duration(value, &duration) < 0)
                return "--stop-timeout wants a duration such as 30s or 500ms";
        if (option == 'p')
                options->private_fd = value;
        else if (option == 't')
                options->stop_timeout = value;
        else if (option == 'r')
                options->runtime_dir = value;
        else if (option == 's')
                options->state_dir = value;
        else if (option == 'l')
                options->log_dir = value;
        return NULL;
}

static int run(int argc, char **argv) {
        static const struct option long_options[] = {
                { "private", required_argument, NULL, 'p' },
                { "stop-timeout", required_argument, NULL, 't' },
                { "runtime-dir", required_argument, NULL, 'r' },
                { "state-dir", required_argument, NULL, 's' },
                { "log-dir", required_argument, NULL, 'l' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        char error[OPTIONS_ERROR_MAX] = "";
        SuperviseOptions options = { 0 };
        const char *wrong;
        int c;

        options_begin();
        while ((c = options_next(argc, argv, long_options, error)) >= 0) {
                if (c == 'h')
                        return command_help(&command_supervise);
                wrong = c == '?' ? error : set(&options, c, optarg);
                if (wrong)
                        return command_usage(&command_supervise, wrong);
        }
        options.configs = argv + optind;
        options.n_configs = (size_t) (argc - optind);
        if (options.private_fd &&
            (options.n_configs > 0 || options.runtime_dir || options.state_dir || options.log_dir))
                return command_usage(&command_supervise,
                                     "with --private it takes no configuration and no directories");
        return become_keeper(&options);
}

const Command command_supervise = {
        .name = "supervise",
        .summary = "run a supervisor",
        .help = "Usage: baton supervise [OPTION...] [CONFIG...]\n"
                "       baton supervise --private=FD\n"
                "\n"
                "Becomes a supervisor, in the foreground, and starts what the files or directories CONFIG say (see\n"
                "docs/configuration.md); without any, it waits for clients that start runners.\n"
                "\n"
                "  --runtime-dir DIR        lock, control socket and what lives as long as it; as root /run/baton,\n"
                "                           else $XDG_RUNTIME_DIR/baton, else /tmp/baton-UID\n"
                "  --state-dir DIR          $STATE_DIRECTORY; as root /var/lib/baton, else $XDG_STATE_HOME/baton,\n"
                "                           else ~/.local/state/baton\n"
                "  --log-dir DIR            $LOGS_DIRECTORY; as root /var/log/baton, else log in the state directory\n"
                "  --stop-timeout DURATION  in which everything must stop (10s)\n"
                "  --private FD             serves one client alone, at the other end of the lane FD, a connected\n"
                "                           unix stream socket that was inherited. When that client closes it or\n"
                "                           dies, the runners are stopped. Programs start this themselves, 'baton\n"
                "                           call' and 'baton run' among them\n"
                "  --help\n"
                "\n"
                "Signals: TERM and INT stop everything in order; HUP loads the configuration again; USR1 replaces a\n"
                "supervisor that hangs, runners go on.\n"
                "\n"
                "Environment: BATON_SOCKET, the control socket, where no --runtime-dir is given (control in the\n"
                "runtime directory); NOTIFY_SOCKET and WATCHDOG_USEC, see sd_notify(3); BATON_LIBEXEC, the directory\n"
                "of baton-keeper and baton-supervisor; BATON_LOG_LEVEL (error, warning, notice, info, debug);\n"
                "BATON_DISABLE, kernel features to do without.\n"
                "\n"
                "Exit codes: 0; 1 it cannot start, or could not stop in order and everything was killed; 2 usage.\n"
                "\n"
                "Example:\n"
                "  baton supervise --runtime-dir=/run/site /etc/site.yaml\n",
        .run = run,
};
