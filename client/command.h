#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The sub-commands of `baton'. */

typedef struct Command {
        const char *name;
        const char *summary;               /* one line of the list */
        const char *help;                  /* all of it, with examples */
        int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns the exit code */
} Command;

extern const Command command_bench;
extern const Command command_call;
extern const Command command_check;
extern const Command command_events;
extern const Command command_logs;
extern const Command command_methods;
extern const Command command_checkpoint;
extern const Command command_fds;
extern const Command command_metrics;
extern const Command command_ping;
extern const Command command_reload;
extern const Command command_reset;
extern const Command command_restart;
extern const Command command_run;
extern const Command command_scale;
extern const Command command_service;
extern const Command command_shutdown;
extern const Command command_takeover;
extern const Command command_takeovers;
extern const Command command_signal;
extern const Command command_start;
extern const Command command_status;
extern const Command command_stop;
extern const Command command_supervise;
extern const Command command_upgrade;
extern const Command command_version;

/* command_help() - writes the help to standard output; returns the exit code. */
int command_help(const Command *command);

/* command_output_end() - flushes standard output; returns the exit code, after one line if it was not written. */
int command_output_end(const char *name);

enum { COMMAND_GO_ON = -1 };

/*
 * command_parsed() - after ..._options_parse(), which returned @r and said @error: COMMAND_GO_ON; or the exit code, after
 * the help that was asked for, or the line about what is wrong.
 */
int command_parsed(const Command *command, int r, const char *error);

/* command_usage() - one line on standard error, with where to find help; returns EXIT_CODE_USAGE. */
int command_usage(const Command *command, const char *error);
