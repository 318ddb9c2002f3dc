/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton supervise: becomes baton-keeper, the root of a tree of runners, without changing its pid: what started us (a
 * library, a service manager, a shell) goes on watching the same process. Options are checked here, for a message with
 * the command's name, and passed on.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/options.h"
#include "client/output.h"
#include "common/parse.h"

#define KEEPER "baton-keeper"

static const char *libexec_directory(void) {
        const char *directory = secure_getenv("BATON_LIBEXEC");

        return directory && *directory ? directory : BATON_LIBEXECDIR;
}

static int become_keeper(int private_fd) {
        char program[PATH_MAX], name[] = KEEPER, option[32];
        char *arguments[] = { name, option, NULL };
        int n = snprintf(program, sizeof(program), "%s/" KEEPER, libexec_directory());

        errno = ENAMETOOLONG;
        if (n > 0 && (size_t) n < sizeof(program)) {
                (void) snprintf(option, sizeof(option), "--private=%d", private_fd);
                (void) execv(program, arguments);
        }
        output_error("supervise: cannot execute %s: %s; is baton installed whole? $BATON_LIBEXEC names another "
                     "directory",
                     program, strerror(errno));
        return EXIT_CODE_BROKEN;
}

static int run(int argc, char **argv) {
        static const struct option options[] = {
                { "private", required_argument, NULL, 'p' },
                { "help", no_argument, NULL, 'h' },
                { NULL, 0, NULL, 0 },
        };
        char error[OPTIONS_ERROR_MAX] = "";
        int c, private_fd = -1;

        options_begin();
        while ((c = options_next(argc, argv, options, error)) >= 0) {
                if (c == 'h')
                        return command_help(&command_supervise);
                if (c == '?')
                        return command_usage(&command_supervise, error);
                if (parse_fd(optarg, &private_fd) < 0 || private_fd <= STDERR_FILENO)
                        return command_usage(&command_supervise,
                                             "--private wants an open descriptor's number above 2");
        }
        if (optind < argc)
                return command_usage(&command_supervise, "it takes no arguments");
        if (private_fd < 0)
                return command_usage(&command_supervise,
                                     "--private=FD is missing: other uses come in a later version");
        return become_keeper(private_fd);
}

const Command command_supervise = {
        .name = "supervise",
        .summary = "supervise runners for the owner of a lane",
        .help = "Usage: baton supervise --private=FD\n"
                "\n"
                "Becomes a supervisor for one client, at the other end of the lane FD, a connected unix stream\n"
                "socket that was inherited. When that client closes it or dies, the supervisor stops its\n"
                "runners and ends. Programs start this themselves, `baton call' and `baton run' among them.\n"
                "\n"
                "  --private=FD   the lane\n"
                "  --help\n"
                "\n"
                "Environment: BATON_LIBEXEC, the directory of baton-keeper and baton-supervisor;\n"
                "BATON_LOG_LEVEL (error, warning, notice, info, debug); BATON_DISABLE, kernel features to do\n"
                "without.\n"
                "\n"
                "Exit codes: 0; 1 the keeper cannot be executed; 2 usage.\n"
                "\n"
                "Example, in Python:\n"
                "  ours, theirs = socket.socketpair()\n"
                "  subprocess.Popen(['baton', 'supervise', f'--private={theirs.fileno()}'],\n"
                "                   pass_fds=[theirs.fileno()])\n",
        .run = run,
};
