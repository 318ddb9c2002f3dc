/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton run: keeps one program going below a private supervisor and ends as it ends. The runner has a session of its own
 * and /dev/null as its input; each line that it writes, to standard output or error, comes out on our standard error,
 * and none is lost before its end is reported: the log is followed until it says that it is complete. Where we have a
 * terminal it gets one instead (client/terminal.c), and its log stays empty.
 *
 * The first INT, TERM or HUP asks the runner to stop, the second kills its process group, a third the whole tree.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/output.h"
#include "client/session.h"
#include "client/terminal.h"
#include "common/fd.h"
#include "common/log.h"
#include "proto/message.h"

typedef struct RunCommand {
        Session session; /* first: on_signal() is given it */
        RunOptions options;
        char *program; /* where it is */
        char *name;    /* NULL: not started yet */
        ControlCall logs, stop, kill;
        uint64_t next_seq;
        int open_source; /* whose line has no newline yet; -1: none */
        bool log_ended;
        bool have_exit;
        ControlExit exit;
        Terminal terminal; /* the runner's; not open: it has none */
        int terminal_fd;   /* its side, until it is started */
        int output_error;  /* negative errno: the log has no reader any more */
} RunCommand;

static void on_signal(Session *session) {
        RunCommand *c = CONTAINER_OF(session, RunCommand, session);

        if (!c->name)
                control_interrupt(&session->control);
        else if (session->n_signals == 1)
                control_begin_stop(&session->control, &c->stop, c->name, c->options.stop_timeout_us);
        else if (session->n_signals == 2)
                control_begin_signal(&session->control, &c->kill, c->name, SIGKILL);
        else {
                session->hurry = true;
                private_kill(session->private);
        }
}

/* ---- the log ---- */

static void begin_line(RunCommand *c, const ControlLogLine *line) {
        if (c->open_source == (int) line->source)
                return;
        if (c->open_source >= 0)
                (void) fputc('\n', stderr);
        if (c->options.prefix)
                (void) fprintf(stderr, "%s: ", c->name);
        if (line->source == BATON__CONTROL__LOG_LINE__SOURCE__RECORD) {
                (void) fprintf(stderr, "%s: ", log_level_name((int) line->level));
                if (*line->target)
                        (void) fprintf(stderr, "%s: ", line->target);
        }
}

static void print_line(RunCommand *c, const ControlLogLine *line) {
        begin_line(c, line);
        (void) fwrite(line->text.data, 1, line->text.len, stderr);
        if (!line->partial)
                (void) fputc('\n', stderr);
        c->open_source = line->partial ? (int) line->source : -1;
}

static void take_logs(RunCommand *c, const ControlLogs *logs) {
        int r;

        if (logs->dropped)
                (void) fprintf(stderr, "%sbaton: run: %llu lines were lost: they came faster than they were read\n",
                               c->open_source >= 0 ? "\n" : "", (unsigned long long) logs->dropped);
        if (logs->dropped)
                c->open_source = -1;
        for (size_t i = 0; i < logs->n_lines; i++)
                print_line(c, logs->lines[i]);
        c->next_seq = logs->next_seq;
        if (logs->ended) {
                c->log_ended = true;
                if (c->open_source >= 0)
                        (void) fputc('\n', stderr);
                if (logs->exit) {
                        c->have_exit = true;
                        c->exit = *logs->exit;
                }
        }
        r = output_flush(stderr);
        if (r < 0)
                c->output_error = r;
}

/* follow() - one turn: an answer of the log is written, and the next one asked for. 0 or a negative errno. */
static int follow(RunCommand *c) {
        _cleanup_message_ ControlLogs *logs = NULL;

        if (!c->logs.done)
                return 0;
        logs = control_unpack(&c->logs, &baton__control__logs_response__descriptor);
        if (!logs) {
                /* After Stop the name may be gone before the last answer: then Stop has said how it ended. */
                if (c->logs.failure.status != STATUS_NOT_FOUND || !c->have_exit)
                        (void) session_report(&c->session, c->name, &c->logs.failure);
                c->log_ended = true;
                return 0;
        }
        take_logs(c, logs);
        control_call_deinit(&c->logs);
        if (!c->log_ended)
                control_begin_logs(&c->session.control, &c->logs, c->name, c->next_seq, true);
        return c->output_error;
}

/* take_stop() - the answer of Stop, once. */
static void take_stop(RunCommand *c) {
        _cleanup_message_ ControlStopped *stopped = NULL;

        if (!c->stop.done)
                return;
        stopped = control_unpack(&c->stop, &baton__control__stop_response__descriptor);
        if (stopped && stopped->exit && !c->have_exit) {
                c->have_exit = true;
                c->exit = *stopped->exit;
        }
        if (!stopped && c->stop.failure.status != STATUS_NOT_FOUND)
                (void) session_report(&c->session, c->name, &c->stop.failure);
        control_call_deinit(&c->stop);
}

/* ---- the terminal ---- */

/* send_signal() - to its process group. That it has ended meanwhile is no matter. */
static int send_signal(RunCommand *c, int number) {
        ControlFailure failure = { 0 };
        int r = control_signal(&c->session.control, c->name, number, &failure);

        control_failure_deinit(&failure);
        return r < 0 ? r : 0;
}

static int suspend(RunCommand *c) {
        int r = send_signal(c, SIGSTOP);

        if (r == 0)
                r = terminal_suspend(&c->terminal);
        if (r == 0)
                r = send_signal(c, SIGCONT);
        return r;
}

static int open_terminal(RunCommand *c) {
        const RunOptions *options = &c->options;
        int r;

        if (!options->tty && (options->no_tty || options->native || options->prefix || !terminal_is_ours()))
                return 0;
        r = terminal_open(&c->terminal, c->session.endpoint, &c->terminal_fd);
        if (r < 0)
                output_error("run %s: cannot make a terminal for it: %s", options->runner.program, strerror(-r));
        c->session.terminal_fd = &c->terminal_fd;
        return r;
}

/* ---- from start to end ---- */

static int keep(RunCommand *c, pid_t pid) {
        int r = 0;

        if (c->session.terminal_fd)
                r = terminal_begin(&c->terminal, pid);
        control_begin_logs(&c->session.control, &c->logs, c->name, 0, true);
        while (r == 0 && !c->log_ended) {
                r = c->logs.done ? 0 : endpoint_dispatch(c->session.endpoint, -1);
                take_stop(c);
                if (r == 0)
                        r = follow(c);
                if (r == 0)
                        r = terminal_error(&c->terminal);
                if (r == 0 && c->terminal.wants_suspend)
                        r = suspend(c);
        }
        if (r == 0 && c->terminal.runner)
                r = terminal_drain(&c->terminal);
        control_call_deinit(&c->logs);
        control_call_deinit(&c->stop);
        control_call_deinit(&c->kill);
        return r;
}

static int exit_code(const RunCommand *c, int r) {
        char text[EXIT_TEXT_MAX];
        bool asked;

        if (r == -EPIPE)
                return EXIT_CODE_SIGNAL + SIGPIPE;
        if (r < 0) {
                output_error("run %s: %s", c->name, strerror(-r));
                return EXIT_CODE_BROKEN;
        }
        asked = c->session.n_signals || (c->terminal.runner && c->exit.status == SIGINT);
        exit_describe(c->have_exit ? &c->exit : NULL, text);
        /* An exit code speaks for itself, and so does what the person at the keyboard asked for. */
        if (!c->have_exit || (c->exit.how != BATON__CONTROL__EXIT__HOW__EXITED && !asked))
                output_error("run %s: %s", c->name, text);
        return exit_code_of_runner(c->have_exit ? &c->exit : NULL);
}

static int not_started(RunCommand *c, int r, ControlFailure *failure) {
        int code;

        if (r == -EINTR && c->session.signal)
                return EXIT_CODE_SIGNAL + c->session.signal;
        if (r < 0) {
                output_error("run %s: %s", c->options.runner.program, strerror(-r));
                return EXIT_CODE_BROKEN;
        }
        code = session_report(&c->session, c->options.runner.program, failure);
        control_failure_deinit(failure);
        return code;
}

static int start_and_keep(RunCommand *c) {
        _cleanup_message_ ControlStarted *started = NULL;
        ControlFailure failure = { 0 };
        int r;

        r = session_start(&c->session, &c->options.runner, c->program, c->options.native, &started, &failure);
        if (r != 0)
                return not_started(c, r, &failure);
        c->name = started->name;
        r = keep(c, started->pid);
        terminal_close(&c->terminal);
        r = exit_code(c, r);
        c->name = NULL;
        return r;
}

static int run_parsed(RunCommand *c) {
        ControlFailure failure = { 0 };
        int r, code;

        c->session.command = command_run.name;
        r = session_find(c->options.runner.program, &c->program, &failure);
        if (r != 0)
                return not_started(c, r, &failure);
        if (session_open(&c->session, command_run.name, 0) < 0)
                return EXIT_CODE_BROKEN;
        c->session.on_signal = on_signal;
        if (c->options.native)
                c->session.early_hint = "; does it speak the runner protocol? Without --native it need not";
        c->session.park_output = true;
        (void) setvbuf(stderr, NULL, _IOFBF, BUFSIZ);
        code = open_terminal(c) < 0 ? EXIT_CODE_BROKEN : start_and_keep(c);
        terminal_close(&c->terminal);
        c->terminal_fd = fd_close(c->terminal_fd);
        session_close(&c->session);
        return code;
}

static int run(int argc, char **argv) {
        RunCommand c = { .open_source = -1, .terminal = TERMINAL_NULL, .terminal_fd = -1 };
        char error[OPTIONS_ERROR_MAX] = "";
        int code = command_parsed(&command_run, run_options_parse(argc, argv, &c.options, error), error);

        if (code == COMMAND_GO_ON)
                code = run_parsed(&c);
        free(c.program);
        run_options_deinit(&c.options);
        return code;
}

const Command command_run = {
        .name = "run",
        .summary = "keep one program going in front of us, and end as it ends",
        .help = "Usage: baton run [OPTION...] [--] PROGRAM [ARGUMENT...]\n"
                "\n"
                "Runs PROGRAM supervised, in a session of its own. When baton ends, however it ends, the program is\n"
                "stopped too; INT, TERM or HUP to baton stop it, a second one kills it.\n"
                "\n"
                "On a terminal, that is with standard input and output on one and in its foreground, PROGRAM gets a\n"
                "terminal of its own, with which ours is connected: a shell or an editor works, keys such as ^C are\n"
                "for it, and ^Z stops both until fg. Elsewhere its input is /dev/null, and what it writes, to\n"
                "standard output or error, comes out on standard error line by line; where it writes faster than\n"
                "that can be written, it waits.\n"
                "\n"
                "  -t, --tty                 give it a terminal, also where we have none\n"
                "  --no-tty                  give it none\n"
                "  --native                  it speaks the runner protocol: it counts as started once it has\n"
                "                            connected; without a terminal\n"
                "  --name=NAME               its name in messages (from PROGRAM's)\n"
                "  --env=NAME=VALUE          a variable of its environment; again for more\n"
                "  --prefix                  put the name before each line; without a terminal\n"
                "  --start-timeout=DURATION  with --native: how long it may take to connect (10s)\n"
                "  --stop-timeout=DURATION   what it has for stopping before it is killed (10s)\n"
                "  --help\n"
                "\n"
                "Exit codes: the program's own, or 128 + the signal that ended it; 1 baton itself failed; 2\n"
                "usage; 40 not found, 41 not executable, 42 not for this machine, 43 ended before it connected,\n"
                "44 did not connect.\n"
                "\n"
                "Examples:\n"
                "  baton run -- python3 -m http.server 8000\n"
                "  baton run --name=web --prefix --stop-timeout=2s --env=PORT=8000 ./server --verbose\n"
                "  baton run --native baton-runner-echo\n"
                "  baton run bash\n",
        .run = run,
};
