/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton, the command: finds the sub-command in a table and goes there.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "common/fd.h"
#include "common/log.h"

static int help(int argc, char **argv);

static const Command command_help_ = {
        .name = "help",
        .summary = "help on a command",
        .help = "Usage: baton help [COMMAND]\n"
                "\n"
                "The list of commands, or what COMMAND does and takes.\n"
                "\n"
                "Example: baton help call\n",
        .run = help,
};

static const struct {
        const char *heading;
        const Command *commands[16]; /* ended by NULL */
} groups[] = {
        { "Programs, each with a supervisor of its own",
          { &command_call, &command_run, &command_methods, &command_ping, &command_bench } },
        { "A supervisor that stays",
          { &command_supervise, &command_check, &command_reload, &command_takeover, &command_takeovers,
            &command_shutdown } },
        { "Its runners",
          { &command_status, &command_start, &command_stop, &command_restart, &command_reset, &command_signal,
            &command_scale, &command_upgrade, &command_checkpoint, &command_service, &command_fds } },
        { "What they do", { &command_logs, &command_events, &command_metrics } },
        { "Baton itself", { &command_version, &command_help_ } },
};

static const Command *find(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
                for (size_t j = 0; groups[i].commands[j]; j++)
                        if (strcmp(groups[i].commands[j]->name, name) == 0)
                                return groups[i].commands[j];
        return NULL;
}

static int unknown(const char *name) {
        output_error("unknown command '%s'; try 'baton --help'", name);
        return EXIT_CODE_USAGE;
}

static int help_all(void) {
        (void) printf("Usage: baton COMMAND [OPTION...] [ARGUMENT...]\n"
                      "\n"
                      "Starts programs as supervised runners, keeps them going, and calls them.\n");
        for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
                (void) printf("\n%s:\n", groups[i].heading);
                for (size_t j = 0; groups[i].commands[j]; j++)
                        (void) printf("  %-11s %s\n", groups[i].commands[j]->name, groups[i].commands[j]->summary);
        }
        (void) printf(
                "\n"
                "baton COMMAND --help tells more. Exit codes: 0, 1 baton itself failed, 2 usage; others with their\n"
                "command.\n"
                "\n"
                "Examples: baton call --exec baton-runner-module libz.so.1 -- \\\n"
                "                  'u64 crc32(u64, buffer, u32)' u64:0 buffer:hex:616263 u32:3\n"
                "          baton supervise /etc/baton &\n"
                "          baton status\n");
        return command_output_end("help");
}

static int help(int argc, char **argv) {
        const Command *command;

        if (argc < 2)
                return help_all();
        if (strcmp(argv[1], "--help") == 0)
                return command_help(&command_help_);
        command = find(argv[1]);
        if (argc > 2)
                return command_usage(&command_help_, "one command at a time");
        return command ? command_help(command) : unknown(argv[1]);
}

/* Descriptors 0-2 exist, so that nothing of ours is ever taken for them. */
static int open_standard_fds(void) {
        while (true) {
                int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

                if (fd < 0)
                        return -errno;
                if (fd > STDERR_FILENO) {
                        (void) fd_close(fd);
                        return 0;
                }
        }
}

int main(int argc, char **argv) {
        const Command *command;
        int r = open_standard_fds();

        log_open("baton");
        if (r < 0) {
                output_error("cannot open /dev/null: %s", strerror(-r));
                return EXIT_CODE_BROKEN;
        }
        if (argc < 2) {
                output_error("a command is missing; try 'baton --help'");
                return EXIT_CODE_USAGE;
        }
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
                return help_all();
        command = strcmp(argv[1], "--version") == 0 ? &command_version : find(argv[1]);
        return command ? command->run(argc - 1, argv + 1) : unknown(argv[1]);
}
