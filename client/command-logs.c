/* SPDX-License-Identifier: Apache-2.0 */

/*
 * baton logs: lines of one or more runners. Of each one the lines are asked for page by page (Logs), and of those that are
 * there the oldest comes out next, so that several runners' lines stand in the order of their times. With --follow
 * each is then asked for the next line (a call that waits); where the supervisor ends, the connection is made again and
 * everything goes on from the number after the last line printed: the log, which outlives the supervisor, knows it.
 *
 * Lines are written as log files have them (common/log-line.h). On a terminal control characters are escaped, and
 * colours say who speaks. While the reader of our output sleeps, nothing more is asked for, and signals are heard.
 */

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/command.h"
#include "client/exit-code.h"
#include "client/line-output.h"
#include "client/options-logs.h"
#include "client/output.h"
#include "client/session.h"
#include "common/clock.h"
#include "common/log-line.h"
#include "proto/message.h"

#define SILENT_US (30 * USEC_PER_SEC) /* of one that says nothing: it is asked once more */

enum { RETRY_MS = 1000 };

typedef struct Source {
        char *name;
        ControlCall call;
        ControlLogs *page; /* its lines from @next on are not printed yet; NULL: none */
        size_t next;
        uint64_t seq, log; /* where to go on: as the last answer said */
        bool begun;        /* the first page was asked for */
        bool asked;        /* a call is under way */
        bool current;      /* all there is has been given */
        bool ended, failed;
} Source;

typedef struct LogsCommand {
        Session session;
        LogsOptions options;
        LineOutput output; /* open while the session is */
        Source *sources;
        size_t n_sources, name_width;
        bool colour, terminal;
        int code, output_error;
        char buffer[LOG_WRITTEN_MAX];
} LogsCommand;

/* ------------------------------------------------------------------------------------------------------------- printing */

static const char *const colours[] = { "36", "32", "33", "35", "34", "96", "92", "93", "95", "94" };

/* put_name() - before each line, where there are several. */
static void put_name(const LogsCommand *c, const Source *source) {
        size_t index = (size_t) (source - c->sources);

        if (c->n_sources < 2 || c->options.json)
                return;
        if (c->colour)
                (void) fprintf(c->output.file, "\033[%sm%-*s\033[0m ", colours[index % ARRAY_SIZE(colours)],
                               (int) c->name_width, source->name);
        else
                (void) fprintf(c->output.file, "%-*s ", (int) c->name_width, source->name);
}

static void print_line(LogsCommand *c, const Source *source, const ControlLogLine *from) {
        const LogLine line = {
                .seq = from->seq,
                .time_us = from->time_us,
                .monotonic_us = from->monotonic_us,
                .instance = from->instance,
                .pid = from->pid,
                .source = (LogSource) from->source,
                .partial = from->partial,
                .level = from->level,
                .line = from->line,
                .target = from->target,
                .file = from->file,
                .text = (const char *) from->text.data,
                .size = from->text.len,
        };
        bool red = c->colour &&
                   (line.source == LOG_SOURCE_STDERR || (line.source == LOG_SOURCE_RECORD && line.level < 4));
        size_t size;

        /* What a supervisor sends is bounded by what it may have taken; another one's is not printed. */
        if (line.size > LOG_TEXT_MAX || strlen(line.target) > LOG_TARGET_MAX || strlen(line.file) > LOG_TARGET_MAX)
                return;
        size = log_line_write(&line, source->name, c->options.json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT, c->buffer);
        put_name(c, source);
        if (red)
                (void) fputs("\033[31m", c->output.file);
        if (c->terminal)
                (void) output_text(c->output.file, c->buffer, size - 1);
        else
                (void) fwrite(c->buffer, 1, size - 1, c->output.file);
        (void) fputs(red ? "\033[0m\n" : "\n", c->output.file);
}

static void tell_dropped(LogsCommand *c, const Source *source, uint64_t n) {
        (void) line_output_flush(&c->output);
        output_error("logs %s: %llu lines are no longer kept in memory; a log file, if there is one, has them",
                     source->name, (unsigned long long) n);
}

/* --------------------------------------------------------------------------------------------------------------- asking */

static void ask(LogsCommand *c, Source *source, bool wait) {
        Baton__Control__LogsRequest request = BATON__CONTROL__LOGS_REQUEST__INIT;

        request.name = source->name;
        request.from_seq = source->seq;
        request.log = source->log;
        request.sources = c->options.sources;
        request.wait = wait;
        if (!source->begun) {
                request.last = c->options.last;
                request.since_us = c->options.since_us;
        }
        source->asked = true;
        control_begin(&c->session.control, &source->call, "Logs", &request.base, 0);
}

static void take_page(LogsCommand *c, Source *source, ControlLogs *page) {
        bool same = source->log == 0 || source->log == page->log;

        if (page->dropped && source->begun && same)
                tell_dropped(c, source, page->dropped);
        if (source->begun && !same && page->log)
                output_error("logs %s: the log begins anew: what came before is gone with its supervisor",
                             source->name);
        source->begun = true;
        source->log = page->log;
        source->seq = page->next_seq;
        source->ended = page->ended;
        source->current = page->n_lines == 0;
        source->page = page;
        source->next = 0;
}

/* take_answer() - of a call that is done. */
static void take_answer(LogsCommand *c, Source *source) {
        ControlLogs *page = control_unpack(&source->call, &baton__control__logs_response__descriptor);

        source->asked = false;
        if (page)
                take_page(c, source, page);
        else if (!c->session.control.ended) {
                (void) line_output_flush(&c->output);
                c->code = session_report(&c->session, source->name, &source->call.failure);
                source->failed = true;
        }
        control_call_deinit(&source->call);
}

static bool has_line(const Source *source) {
        return source->page && source->next < source->page->n_lines;
}

/* refresh() - who has no line left asks for more. False: somebody's next line is not known yet. */
static bool refresh(LogsCommand *c, bool wait) {
        bool known = true;

        for (size_t i = 0; i < c->n_sources; i++) {
                Source *source = &c->sources[i];

                if (source->asked && source->call.done)
                        take_answer(c, source);
                if (has_line(source) || source->failed)
                        continue;
                source->page = message_free(source->page);
                if (!source->asked && !source->ended && (wait || !source->current))
                        ask(c, source, wait);
                known = known && !source->asked;
        }
        return known;
}

/* print_oldest() - of all lines that are there. False: none is. */
static bool print_oldest(LogsCommand *c) {
        Source *oldest = NULL;

        for (size_t i = 0; i < c->n_sources; i++) {
                Source *source = &c->sources[i];

                if (has_line(source) && (!oldest || source->page->lines[source->next]->time_us <
                                                            oldest->page->lines[oldest->next]->time_us))
                        oldest = source;
        }
        if (!oldest)
                return false;
        print_line(c, oldest, oldest->page->lines[oldest->next++]);
        return true;
}

static void forget_calls(LogsCommand *c) {
        for (size_t i = 0; i < c->n_sources; i++) {
                control_call_deinit(&c->sources[i].call);
                c->sources[i].asked = false;
        }
}

static bool all_ended(const LogsCommand *c) {
        for (size_t i = 0; i < c->n_sources; i++)
                if (!c->sources[i].ended && !c->sources[i].failed)
                        return false;
        return true;
}

/* offer() - what is printed, to who reads it. 0, -EINTR by a signal, or a negative errno, kept: nobody takes it. */
static int offer(LogsCommand *c) {
        c->output_error = line_output_flush(&c->output);
        if (c->output_error < 0)
                return c->output_error;
        return c->session.control.interrupted ? -EINTR : 0;
}

/* wait_room() - until our reader has so little left that more lines are welcome; 0, or as offer(). */
static int wait_room(LogsCommand *c) {
        int r = 0;

        while (r == 0 && !line_output_has_room(&c->output)) {
                r = offer(c);
                if (r == 0 && !line_output_has_room(&c->output))
                        r = endpoint_dispatch(c->session.endpoint, -1);
        }
        return r;
}

/* drain() - until he has everything; 0, or as offer(). */
static int drain(LogsCommand *c) {
        int r = offer(c);

        while (r == 0 && !line_output_is_empty(&c->output)) {
                r = endpoint_dispatch(c->session.endpoint, -1);
                if (r == 0)
                        r = offer(c);
        }
        return r;
}

/* wait_more() - for one event. 0, as offer(), or -ECONNRESET, the supervisor is gone. */
static int wait_more(LogsCommand *c) {
        int r = offer(c);

        if (r == 0 && c->session.control.ended)
                r = -ECONNRESET;
        return r < 0 ? r : endpoint_dispatch(c->session.endpoint, -1);
}

/* print_kept() - what there is now, in the order of time. */
static int print_kept(LogsCommand *c) {
        int r = 0;

        for (;;) {
                while (r == 0 && !refresh(c, false))
                        r = wait_more(c);
                if (r == 0)
                        r = wait_room(c);
                if (r < 0 || !print_oldest(c))
                        return r;
        }
}

static int follow(LogsCommand *c) {
        int r = 0;

        while (r == 0) {
                (void) refresh(c, true);
                while (r == 0 && print_oldest(c)) {
                        r = wait_room(c);
                        (void) refresh(c, true);
                }
                if (r < 0 || all_ended(c))
                        return r;
                r = wait_more(c);
        }
        return r;
}

/* ---------------------------------------------------------------------------------------------------------------- names */

static int add_source(LogsCommand *c, const char *name) {
        Source *grown;

        for (size_t i = 0; i < c->n_sources; i++)
                if (strcmp(c->sources[i].name, name) == 0)
                        return 0;
        grown = reallocarray(c->sources, c->n_sources + 1, sizeof(*grown));
        if (!grown)
                return -ENOMEM;
        c->sources = grown;
        grown[c->n_sources] = (Source){ .name = strdup(name) };
        if (!grown[c->n_sources].name)
                return -ENOMEM;
        c->n_sources++;
        c->name_width = MAX(c->name_width, strlen(name));
        return 0;
}

/* add_matching() - the runners that a pattern fits, as Status says. 0; CONTROL_REFUSED: was told; or a negative errno. */
static int add_matching(LogsCommand *c, char *pattern) {
        Baton__Control__StatusRequest request = BATON__CONTROL__STATUS_REQUEST__INIT;
        Baton__Control__StatusResponse *response;
        ControlCall call;
        int r;

        request.names = &pattern;
        request.n_names = 1;
        control_begin(&c->session.control, &call, "Status", &request.base, 0);
        r = control_wait(&c->session.control, &call);
        response = r == 0 ? control_unpack(&call, &baton__control__status_response__descriptor) : NULL;
        if (r == 0 && !response) {
                c->code = session_report(&c->session, pattern, &call.failure);
                r = CONTROL_REFUSED;
        }
        for (size_t i = 0; response && r == 0 && i < response->n_runners; i++)
                r = add_source(c, response->runners[i]->name);
        control_call_deinit(&call);
        (void) message_free(response);
        return r;
}

static int find_names(LogsCommand *c) {
        int r = 0;

        for (size_t i = 0; r >= 0 && i < c->options.n_names; i++) {
                char *name = c->options.names[i];

                r = strpbrk(name, "*?[") ? add_matching(c, name) : add_source(c, name);
        }
        return MIN(r, 0);
}

/* ---------------------------------------------------------------------------------------------------- from start to end */

/*
 * connect_again() - 0, or -ECANCELED with the exit code, or -EINTR. A keeper that has no supervisor for now, or one that
 * hangs, is asked again.
 */
static int connect_again(LogsCommand *c) {
        int r = drain(c);

        if (r < 0)
                return r;
        output_error("logs: the supervisor is gone; connecting to the next one");
        forget_calls(c);
        line_output_close(&c->output);
        for (;;) {
                session_close(&c->session);
                r = session_try(&c->session, command_logs.name, c->options.socket, SILENT_US, NULL);
                if (r != SESSION_KEEPER_ALONE && r != SESSION_SILENT)
                        break;
                (void) poll(NULL, 0, RETRY_MS);
        }
        if (r != 0 && r != -EINTR) /* which says why */
                r = session_connect(&c->session, command_logs.name, c->options.socket, &c->code);
        if (r == 0)
                r = line_output_open(&c->output, c->session.endpoint, STDOUT_FILENO);
        if (r == 0)
                c->code = EXIT_CODE_OK;
        return r;
}

static int exit_code(const LogsCommand *c, int r) {
        if (c->output_error == -EPIPE)
                return EXIT_CODE_SIGNAL + SIGPIPE;
        if (c->output_error < 0) {
                output_error("logs: cannot write: %s", strerror(-c->output_error));
                return EXIT_CODE_BROKEN;
        }
        if (r == -EINTR && c->session.signal)
                return EXIT_CODE_SIGNAL + c->session.signal;
        if (r == -ECANCELED || r == 0)
                return c->code;
        output_error("logs: %s", r == -ECONNRESET ? "the supervisor is gone" : strerror(-r));
        return EXIT_CODE_BROKEN;
}

static int show(LogsCommand *c) {
        int r = line_output_open(&c->output, c->session.endpoint, STDOUT_FILENO);

        if (r == 0)
                r = find_names(c);
        if (r == 0)
                r = print_kept(c);
        while (c->options.follow && (r == 0 || r == -ECONNRESET)) {
                if (r == 0)
                        r = follow(c);
                if (r != -ECONNRESET)
                        break;
                r = connect_again(c);
        }
        if ((r == 0 || r == -ECONNRESET) && c->output.file) {
                int left = drain(c);

                r = left < 0 ? left : r;
        }
        return exit_code(c, r);
}

static int run_parsed(LogsCommand *c) {
        int code;

        if (session_connect(&c->session, command_logs.name, c->options.socket, &code) < 0)
                return code;
        c->terminal = isatty(STDOUT_FILENO);
        c->colour = c->terminal && !c->options.json && !getenv("NO_COLOR");
        code = show(c);
        forget_calls(c);
        line_output_close(&c->output);
        session_close(&c->session);
        return code;
}

static int run(int argc, char **argv) {
        LogsCommand *c = calloc(1, sizeof(*c));
        char error[OPTIONS_ERROR_MAX] = "";
        int r, code;

        if (!c) {
                output_error("logs: %s", strerror(ENOMEM));
                return EXIT_CODE_BROKEN;
        }
        c->session.signal_fd = -1;
        c->output = LINE_OUTPUT_NULL;
        r = logs_options_parse(argc, argv, &c->options, error);
        if (r == OPTIONS_HELP)
                code = command_help(&command_logs);
        else if (r < 0)
                code = command_usage(&command_logs, *error ? error : strerror(-r));
        else
                code = run_parsed(c);
        for (size_t i = 0; i < c->n_sources; i++) {
                (void) message_free(c->sources[i].page);
                free(c->sources[i].name);
        }
        free(c->sources);
        free(c);
        return code;
}

const Command command_logs = {
        .name = "logs",
        .summary = "print what runners have written, and follow it",
        .help = "Usage: baton logs [OPTION...] NAME...\n"
                "\n"
                "Prints the lines that runners wrote to standard output and error, and their log records, as far as\n"
                "they are kept in memory. NAME may be a pattern such as 'web.*'. Of several runners the lines come "
                "in\n"
                "the order of their times, with the name before each.\n"
                "\n"
                "  -f, --follow             go on with each line that comes, over restarts of the runner and of the\n"
                "                           supervisor; begins with the last 10 lines, unless told otherwise\n"
                "  -n, --lines=N            begin with the last N lines of each runner; all: with all that are kept\n"
                "  --since=TIME             begin with the first line that is not older: 2026-11-21T09:30:00Z, a\n"
                "                           local '2026-11-21 10:30' or 2026-11-21, or how long ago, such as 10min\n"
                "  --stream=STREAM          only stdout, stderr or record; again for more\n"
                "  --json                   print one JSON object per line\n"
                "  --socket=PATH            the supervisor's control socket ($BATON_SOCKET)\n"
                "  --help\n"
                "\n"
                "A line is its time (UTC), stream, pid and text; a '+' behind the stream says that the line was too\n"
                "long and goes on in the next one.\n"
                "\n"
                "Exit codes: 0; 1 baton itself failed; 2 usage; 21 there is no such runner; 46-48 no supervisor;\n"
                "128 + the signal that ended it.\n"
                "\n"
                "Examples:\n"
                "  baton logs web.1\n"
                "  baton logs -f 'web.*' db --since=10min\n"
                "  baton logs --json --stream=stderr web.1 | jq -r .text\n",
        .run = run,
};
