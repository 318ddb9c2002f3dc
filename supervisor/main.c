/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton-supervisor: started by baton-keeper, with descriptors at the numbers of common/keeper-message.h. This file reads
 * the arguments, prepares the process and wires; everything else is in supervisor.c.
 */

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/keeper-message.h"
#include "common/log.h"
#include "common/pace.h"
#include "common/parse.h"
#include "common/version.h"
#include "supervisor/check.h"
#include "supervisor/spawn.h"
#include "supervisor/supervisor.h"

#define STOP_TIMEOUT_US (10 * USEC_PER_SEC)

typedef struct Arguments {
        uint64_t generation, nofile, stop_timeout_us;
        bool private;
        const char *runtime_dir, *state_dir, *log_dir, *socket;
        char *const *configs;
        bool takeover;
        bool check; /* the configurations, and nothing else */
} Arguments;

static const char help[] =
        "Usage: baton-supervisor --generation=N [--nofile=N] [--stop-timeout=DURATION] --private\n"
        "       baton-supervisor --generation=N ... --runtime-dir=DIR --state-dir=DIR --log-dir=DIR --socket=PATH "
        "[CONFIG...]\n"
        "       baton-supervisor --check CONFIG...\n"
        "\n"
        "Runs the runners of one baton. Started by baton-keeper, which puts its socket at descriptor 3, the lane of "
        "a\n"
        "private client at 4, and its own pidfd at 5; not by hand: use 'baton call', 'baton run' or 'baton "
        "supervise'.\n"
        "\n"
        "  --generation=N           which supervisor of this keeper it is, from 1\n"
        "  --nofile=N               soft limit of open files that runners get back\n"
        "  --stop-timeout=DURATION  time for stopping everything (10s)\n"
        "  --private                one client, whose end is ours\n"
        "  --runtime-dir=DIR, --state-dir=DIR, --log-dir=DIR, --socket=PATH\n"
        "                           of a daemon: where things are; CONFIG: what the first one loads\n"
        "  --takeover               a supervisor runs, with which it shares descriptor 6, and which it is to follow\n"
        "  --check                  say whether CONFIG could be loaded, and end\n"
        "  --help, --version\n";

static int usage(const char *text) {
        (void) fprintf(stderr, "baton-supervisor: %s; it is started by baton-keeper, see baton-supervisor --help\n",
                       text);
        return 2;
}

/* set() - 0, or what usage() says. */
static int set(Arguments *a, int option, const char *value) {
        if (option == 'g' && (parse_u64(value, UINT32_MAX, &a->generation) < 0 || a->generation == 0))
                return usage("--generation wants a number from 1");
        if (option == 'n' && parse_u64(value, UINT64_MAX, &a->nofile) < 0)
                return usage("--nofile wants a number");
        if (option == 's' && parse_duration(value, &a->stop_timeout_us) < 0)
                return usage("--stop-timeout wants a duration such as 10s");
        if (option == 'r')
                a->runtime_dir = value;
        if (option == 't')
                a->state_dir = value;
        if (option == 'l')
                a->log_dir = value;
        if (option == 'c')
                a->socket = value;
        a->private |= option == 'p';
        a->check |= option == 'k';
        a->takeover |= option == 'o';
        return option == '?' ? 2 : 0;
}

static int check(const Arguments *a) {
        if (a->check)
                return *a->configs ? 0 : usage("--check wants a file or directory");
        if (a->generation == 0)
                return usage("--generation is missing");
        if (a->private && *a->configs)
                return usage("with --private it takes no arguments besides options");
        if (!a->private && !(a->runtime_dir && a->state_dir && a->log_dir && a->socket))
                return usage("--private, or --runtime-dir, --state-dir, --log-dir and --socket are missing");
        return 0;
}

/* parse() - 0; 1: done, exit with success; 2: wrong. */
static int parse(int argc, char **argv, Arguments *ret_arguments) {
        static const struct option options[] = {
                { "generation", required_argument, NULL, 'g' },
                { "nofile", required_argument, NULL, 'n' },
                { "stop-timeout", required_argument, NULL, 's' },
                { "private", no_argument, NULL, 'p' },
                { "runtime-dir", required_argument, NULL, 'r' },
                { "state-dir", required_argument, NULL, 't' },
                { "log-dir", required_argument, NULL, 'l' },
                { "socket", required_argument, NULL, 'c' },
                { "takeover", no_argument, NULL, 'o' },
                { "check", no_argument, NULL, 'k' },
                { "help", no_argument, NULL, 'h' },
                { "version", no_argument, NULL, 'v' },
                { 0 },
        };
        Arguments a = { .stop_timeout_us = STOP_TIMEOUT_US };
        int option, r;

        while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
                if (option == 'h')
                        (void) fputs(help, stdout);
                if (option == 'v')
                        (void) printf("baton-supervisor %s (%s)\n", version_release(), version_commit());
                if (option == 'h' || option == 'v')
                        return 1;
                r = set(&a, option, optarg);
                if (r != 0)
                        return r;
        }
        a.configs = argv + optind;
        *ret_arguments = a;
        return check(&a);
}

/* check_fds() - what the keeper has put in place. NULL, or what is missing. */
static const char *check_fds(const Arguments *arguments) {
        if (fcntl(KEEPER_SOCKET_FD, F_GETFD) < 0)
                return "the keeper's socket is missing at descriptor 3";
        if (fcntl(KEEPER_PIDFD_FD, F_GETFD) < 0)
                return "the keeper's pidfd is missing at descriptor 5";
        if (arguments->private && !fd_is_unix_stream(KEEPER_PRIVATE_FD))
                return "the client's lane is missing at descriptor 4";
        if (arguments->takeover && fcntl(KEEPER_HANDOVER_FD, F_GETFD) < 0)
                return "the predecessor's socket is missing at descriptor 6";
        return NULL;
}

static int fail(const char *step, int error) {
        log_error("cannot start: %s: %s", step, strerror(-error));
        return EXIT_FAILURE;
}

/* take_handover() - out of the way of what is reserved for children; everything else is closed. */
static int take_handover(const Arguments *arguments) {
        int fd = arguments->takeover ? fcntl(KEEPER_HANDOVER_FD, F_DUPFD_CLOEXEC, KEEPER_RESERVED_FDS) : -1;
        unsigned from = KEEPER_PIDFD_FD + 1;

        if (fd >= 0) {
                (void) close_range(from, (unsigned) fd - 1, 0);
                from = (unsigned) fd + 1;
        }
        (void) close_range(from, ~0u, 0);
        return fd;
}

static int serve(const Arguments *arguments) {
        _cleanup_(supervisor_freep) Supervisor *supervisor = NULL;
        struct rlimit nofile;
        SupervisorOptions options = {
                .generation = (uint32_t) arguments->generation,
                .stop_timeout_us = arguments->stop_timeout_us,
                .private_fd_consume = -1,
                .handover_fd_consume = -1,
                .runtime_dir = arguments->private ? NULL : arguments->runtime_dir,
                .state_dir = arguments->state_dir,
                .log_dir = arguments->log_dir,
                .socket = arguments->socket,
                .configs = (const char *const *) arguments->configs,
        };
        int r;

        if (arguments->takeover)
                pace_rest(); /* exec and the dynamic linker were one piece of work, beside somebody who serves */

        /* What else is open is nobody's, and would be held as long as we live. */
        options.handover_fd_consume = take_handover(arguments);
        if (!arguments->private)
                fd_close(KEEPER_PRIVATE_FD);
        r = fd_close_promptly();
        if (r < 0)
                return fail("sigaction(SIGURG)", r);
        r = fd_raise_limit(&nofile);
        if (r < 0)
                return fail("setrlimit(RLIMIT_NOFILE)", r);
        if (arguments->nofile)
                nofile.rlim_cur = MIN(arguments->nofile, nofile.rlim_max);
        options.nofile = &nofile;
        r = spawn_reserve();
        if (r < 0)
                return fail("reserving descriptors 3 to 15", r);

        /* The numbers stay: what is used is a duplicate, born CLOEXEC, above those reserved. */
        options.keeper_fd_consume = fd_dup(KEEPER_SOCKET_FD);
        if (arguments->private)
                options.private_fd_consume = fd_dup(KEEPER_PRIVATE_FD);
        r = supervisor_new(&supervisor, &options);
        if (r < 0)
                return fail("out of descriptors or memory", r);
        return supervisor_run(supervisor);
}

int main(int argc, char **argv) {
        Arguments arguments = { 0 };
        const char *missing;
        int r;

        log_open("baton-supervisor");
        r = parse(argc, argv, &arguments);
        if (r != 0)
                return r == 1 ? EXIT_SUCCESS : r;
        if (arguments.check)
                return check_configuration(arguments.configs);
        missing = check_fds(&arguments);
        if (missing)
                return usage(missing);
        (void) signal(SIGPIPE, SIG_IGN);
        (void) signal(SIGXFSZ, SIG_IGN); /* a log beyond RLIMIT_FSIZE is an error to be told, not our end */
        return serve(&arguments);
}
