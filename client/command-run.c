/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton run: keeps one program going below a private supervisor and ends as it ends. The runner has a session of its own
 * and /dev/null as its input; each line that it writes, to standard output or error, comes out on our standard error,
 * and none is lost before its end is reported: the log is followed until it says that it is complete. Where we have a
 * terminal it gets one instead (client/terminal.c), and its log stays empty.
 *
 * The first INT, TERM or HUP asks the runner to stop, the second kills its process group, a third the whole tree.
 *
 * We never wait in write(): while the reader of our output sleeps, signals and the end of the runner are heard. The next
 * lines are asked for when there is room for them, and so the runner waits for the reader, however long he sleeps. A
 * signal ends that: once the runner is gone, a reader who takes nothing for as long as the runner had for stopping, or
 * UNREAD_US after a second signal, is not waited for any more. Our own words come last, behind all lines.
 */

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/line-output.h"
#include "client/output.h"
#include "client/session.h"
#include "client/terminal.h"
#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "proto/message.h"

#define STOP_US   (10 * USEC_PER_SEC) /* --stop-timeout, when it is not given */
#define UNREAD_US USEC_PER_SEC

typedef struct RunCommand {
        Session session; /* first: on_signal() is given it */
        RunOptions options;
        char *program; /* where it is */
        char *name;    /* NULL: not started yet */
        ControlCall logs, stop, kill;
        uint64_t next_seq;
        LineOutput output;
        int open_source; /* whose line has no newline yet; -1: none */
        bool log_ended;
        bool stopped;      /* Stop was answered: the runner is gone */
        uint64_t taken;    /* bytes of our output, when that was last looked at ... */
        uint64_t taken_us; /* ... and since when it has not changed, monotonic; 0: not looked at yet */
        bool have_exit;
        ControlExit exit;
        Terminal terminal; /* the runner's; not open: it has none */
        int terminal_fd;   /* its side, until it is started */
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
        FILE *to = c->output.file;

        if (c->open_source == (int) line->source)
                return;
        if (c->open_source >= 0)
                (void) fputc_unlocked('\n', to);
        if (c->options.prefix)
                (void) fprintf(to, "%s: ", c->name);
        if (line->source == BATON__CONTROL__LOG_LINE__SOURCE__RECORD) {
                (void) fprintf(to, "%s: ", log_level_name((int) line->level));
                if (*line->target)
                        (void) fprintf(to, "%s: ", line->target);
        }
}

static void print_line(RunCommand *c, const ControlLogLine *line) {
        begin_line(c, line);
        if (line->text.len > 0) /* an empty one has no data at all */
                (void) fwrite_unlocked(line->text.data, 1, line->text.len, c->output.file);
        if (!line->partial)
                (void) fputc_unlocked('\n', c->output.file);
        c->open_source = line->partial ? (int) line->source : -1;
}

static void take_logs(RunCommand *c, const ControlLogs *logs) {
        if (logs->dropped)
                (void) fprintf(c->output.file,
                               "%sbaton: run: %llu lines were lost: they came faster than they were read\n",
                               c->open_source >= 0 ? "\n" : "", (unsigned long long) logs->dropped);
        if (logs->dropped)
                c->open_source = -1;
        for (size_t i = 0; i < logs->n_lines; i++)
                print_line(c, logs->lines[i]);
        c->next_seq = logs->next_seq;
        if (logs->ended) {
                c->log_ended = true;
                if (c->open_source >= 0)
                        (void) fputc('\n', c->output.file);
                if (logs->exit) {
                        c->have_exit = true;
                        c->exit = *logs->exit;
                }
        }
}

/* follow() - one turn: an answer of the log is written, and the next one asked for. 0 or a negative errno. */
static int follow(RunCommand *c) {
        _cleanup_message_ ControlLogs *logs = NULL;

        if (c->log_ended || !c->logs.done || !line_output_has_room(&c->output))
                return c->output.bytes.error;
        logs = control_unpack(&c->logs, &baton__control__logs_response__descriptor);
        if (!logs) {
                c->log_ended = true; /* report() */
                return 0;
        }
        control_call_deinit(&c->logs);
        if (!logs->ended) /* first, so that the next lines are on their way while these are written */
                control_begin_logs(&c->session.control, &c->logs, c->name, logs->next_seq, true);
        take_logs(c, logs);
        return line_output_flush(&c->output);
}

/* take_stop() - the answer of Stop, once. Why it failed is left for report(). */
static void take_stop(RunCommand *c) {
        _cleanup_message_ ControlStopped *stopped = NULL;

        if (c->stopped || !c->stop.done)
                return;
        c->stopped = true;
        stopped = control_unpack(&c->stop, &baton__control__stop_response__descriptor);
        if (stopped && stopped->exit && !c->have_exit) {
                c->have_exit = true;
                c->exit = *stopped->exit;
        }
}

/* report() - what has failed, behind the last line. */
static void report(const RunCommand *c) {
        const ControlFailure *logs = &c->logs.failure, *stop = &c->stop.failure;

        if (c->stopped && stop->status != STATUS_OK && stop->status != STATUS_NOT_FOUND)
                (void) session_report(&c->session, c->name, stop);
        /* After Stop the name may be gone before the last answer: then Stop has said how it ended. */
        if (c->logs.done && logs->status != STATUS_OK && (logs->status != STATUS_NOT_FOUND || !c->have_exit))
                (void) session_report(&c->session, c->name, logs);
}

/* ---- the reader of our output ---- */

/* patience() - for how long one who takes nothing is waited for; USEC_INFINITY: as long as he likes. */
static uint64_t patience(const RunCommand *c) {
        uint64_t stop_us = c->options.stop_timeout_us ? c->options.stop_timeout_us : STOP_US;

        if (c->session.n_signals == 0 || !(c->stopped || c->log_ended || c->session.control.ended))
                return USEC_INFINITY;
        if (c->session.hurry)
                return 0;
        return c->session.n_signals > 1 ? MIN(stop_us, (uint64_t) UNREAD_US) : stop_us;
}

/* deadline() - when he is not waited for any more. His time begins when it is first asked for, and anew when he reads. */
static uint64_t deadline(RunCommand *c) {
        uint64_t us = patience(c), taken = c->output.bytes.written + c->terminal.to_us.written;

        if (us == USEC_INFINITY || (line_output_is_empty(&c->output) && byte_output_is_empty(&c->terminal.to_us))) {
                c->taken_us = 0; /* it is not he who is waited for */
                return USEC_INFINITY;
        }
        if (c->taken_us == 0 || taken != c->taken)
                c->taken_us = clock_now();
        c->taken = taken;
        return clock_after(c->taken_us, us);
}

/* given_up() - and then nothing is to be said either: it would wait in write(). */
static bool given_up(void *userdata) {
        RunCommand *c = userdata;

        return clock_now() >= deadline(c);
}

/* is_done() - everything there is was written, or nobody wants it. */
static bool is_done(RunCommand *c) {
        return c->log_ended && line_output_is_empty(&c->output);
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

/* turn() - one event, unless there is an answer to be taken. 0 or a negative errno. */
static int turn(RunCommand *c) {
        uint64_t until = deadline(c), now = clock_now();
        int r = 0, ms = -1;

        if (until != USEC_INFINITY)
                ms = until > now ? (int) MIN((until - now) / USEC_PER_MSEC + 1, (uint64_t) INT_MAX) : 0;
        if (c->log_ended || !c->logs.done || !line_output_has_room(&c->output))
                r = endpoint_dispatch(c->session.endpoint, ms);
        take_stop(c);
        if (r == 0)
                r = follow(c);
        if (r == 0)
                r = terminal_error(&c->terminal);
        if (r == 0 && c->terminal.wants_suspend)
                r = suspend(c);
        return r;
}

static int keep(RunCommand *c, pid_t pid) {
        bool unread = false;
        int r;

        r = line_output_open(&c->output, c->session.endpoint, STDERR_FILENO);
        if (r == 0 && c->session.terminal_fd)
                r = terminal_begin(&c->terminal, pid);
        if (r == 0)
                control_begin_logs(&c->session.control, &c->logs, c->name, 0, true);
        while (r == 0 && !is_done(c) && !unread) {
                r = turn(c);
                unread = r == 0 && !is_done(c) && given_up(c);
        }
        if (r == 0 && !unread && c->terminal.runner)
                r = terminal_drain(&c->terminal, given_up, c);
        if (unread)
                r = -ETIME;
        if (r == 0)
                report(c);
        line_output_close(&c->output);
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
        /* Not all was written, for which the signal is the reason; without a word: who would read it? */
        if (r == -ETIME)
                return EXIT_CODE_SIGNAL + c->session.signal;
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
        code = open_terminal(c) < 0 ? EXIT_CODE_BROKEN : start_and_keep(c);
        terminal_close(&c->terminal);
        c->terminal_fd = fd_close(c->terminal_fd);
        session_close(&c->session);
        return code;
}

static int run(int argc, char **argv) {
        RunCommand c = { .output = LINE_OUTPUT_NULL, .open_source = -1, .terminal = TERMINAL_NULL, .terminal_fd = -1 };
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
