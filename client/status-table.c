/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Status table: a row for each runner, as people read it. On a terminal no row is longer than it is wide: the last column is
 * cut, then long names in their middle, where they differ least, then two columns are left out. States have colours unless
 * $NO_COLOR is set. What is drawn over and over has no more rows than can be seen, and says how many are missing: rows that
 * scroll away would be the first, and with them the heading.
 */

#include "client/status-table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "client/output.h"
#include "client/status-text.h"
#include "common/clock.h"
#include "common/macro.h"

typedef Baton__Control__RunnerStatus Runner;
typedef Baton__Control__StatusResponse StatusResponse;

enum {
        COLUMNS_MIN = 40, /* narrower is not tried */
        ROWS_MIN = 4,     /* the same of heights */
        NAME_MIN = 16,    /* below, columns are left out first */
        WHY_MIN = 10,
        STATE_WIDTH = 9,
        PID_WIDTH = 7,
        NUMBER_WIDTH = 8, /* of two columns */
        GAP = 2,          /* between two columns */
        TEXT_MAX = 1024,
};

/* How wide things are in one table. */
typedef struct Shape {
        size_t name;
        size_t why;   /* SIZE_MAX: no end */
        bool numbers; /* UPTIME and RESTARTS are there */
} Shape;

StatusView status_view_of_stdout(bool watch) {
        StatusView view = { .terminal = isatty(STDOUT_FILENO), .columns = SIZE_MAX, .rows = SIZE_MAX };
        const char *no_color = getenv("NO_COLOR");
        struct winsize size;

        view.colour = view.terminal && (!no_color || !*no_color);
        if (!view.terminal || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) < 0)
                return view;
        if (size.ws_col >= COLUMNS_MIN)
                view.columns = size.ws_col;
        if (watch && size.ws_row >= ROWS_MIN)
                view.rows = size.ws_row - 1; /* the cursor is in the last one */
        return view;
}

static const char *colour_of(int state) {
        switch (state) {
        case BATON__CONTROL__RUNNER_STATUS__STATE__UP:
                return "32";
        case BATON__CONTROL__RUNNER_STATUS__STATE__FAILED:
                return "31";
        case BATON__CONTROL__RUNNER_STATUS__STATE__DOWN:
        case BATON__CONTROL__RUNNER_STATUS__STATE__DONE:
        case BATON__CONTROL__RUNNER_STATUS__STATE__SCHEDULED:
                return "2";
        default:
                return "33";
        }
}

void status_print_state(const StatusView *view, const Runner *runner, int width) {
        const char *name = status_state_name((int) runner->state);

        if (view->colour)
                (void) printf("\033[%sm%-*s\033[0m", colour_of((int) runner->state), width, name);
        else
                (void) printf("%-*s", width, name);
}

/* ---- text that has to fit ---- */

static void append(char *text, size_t size, const char *separator, const char *more) {
        size_t n = strlen(text);

        if (n < size)
                (void) snprintf(text + n, size - n, "%s%s", n > 0 ? separator : "", more);
}

/* was_told_to() - its end before was asked for, by an upgrade or a restart, and says nothing of one that is up. */
static bool was_told_to(const Runner *runner) {
        return runner->state == BATON__CONTROL__RUNNER_STATUS__STATE__UP &&
               runner->last_exit->cause == BATON__CONTROL__EXIT_RECORD__CAUSE__STOPPED;
}

/* remark() - the last column: what it waits for, and why it is where it is. */
static void remark(const Runner *runner, char *text, size_t size) {
        char part[STATUS_TEXT_MAX + 32], time[STATUS_TEXT_MAX];

        *text = '\0';
        for (size_t i = 0; i < runner->n_waits_for; i++) {
                if (i == 0)
                        append(text, size, "", "waits for");
                append(text, size, i ? ", " : " ", runner->waits_for[i]);
        }
        if (runner->next_start_us > 0) {
                status_duration_text(runner->next_start_us, time);
                (void) snprintf(part, sizeof(part), "starts in %.100s", time);
                append(text, size, "; ", part);
        }
        if (*runner->status_text)
                append(text, size, "; ", runner->status_text);
        if (*runner->reason) {
                append(text, size, "; ", runner->reason);
        } else if (runner->last_exit && !was_told_to(runner)) {
                status_exit_describe(runner->last_exit, part);
                append(text, size, "; ", part);
        }
        if (*text == '\0')
                append(text, size, "", "-");
}

/* print_cut() - at most so many columns; a reason may have any character, so that it is cut between two. */
static void print_cut(const char *text, size_t columns) {
        size_t n = 0, end = 0;

        for (; text[end]; end++)
                if ((text[end] & 0xc0) != 0x80 && n++ == columns)
                        break;
        (void) output_text(stdout, text, end);
}

/* print_name() - padded, or with a ~, which no name has, in place of what is too much; numbers of instances stay. */
static void print_name(const char *name, size_t width) {
        size_t n = strlen(name), tail = width / 3;

        if (n <= width)
                (void) printf("%-*s", (int) width, name);
        else
                (void) printf("%.*s~%s", (int) (width - tail - 1), name, name + n - tail);
}

/* ---- rows ---- */

static Shape shape_of(const StatusView *view, const StatusResponse *status) {
        size_t rest = GAP + STATE_WIDTH + GAP + PID_WIDTH + GAP + 2 * (NUMBER_WIDTH + GAP);
        Shape shape = { .name = strlen("NAME"), .why = SIZE_MAX, .numbers = true };

        for (size_t i = 0; i < status->n_runners; i++)
                shape.name = MAX(shape.name, strlen(status->runners[i]->name));
        if (view->columns == SIZE_MAX)
                return shape;
        if (view->columns < MIN(shape.name, NAME_MIN) + rest + WHY_MIN) {
                shape.numbers = false;
                rest -= 2 * (NUMBER_WIDTH + GAP);
        }
        shape.name = MIN(shape.name, view->columns - rest - WHY_MIN);
        shape.why = view->columns - rest - shape.name;
        return shape;
}

static void print_heading(const Shape *shape) {
        (void) printf("%-*s  %-*s  %*s  ", (int) shape->name, "NAME", STATE_WIDTH, "STATE", PID_WIDTH, "PID");
        if (shape->numbers)
                (void) printf("%*s  %*s  ", NUMBER_WIDTH, "UPTIME", NUMBER_WIDTH, "RESTARTS");
        (void) printf("WHY\n");
}

static void print_row(const StatusView *view, const Shape *shape, const Runner *runner) {
        char pid[16] = "-", up[STATUS_TEXT_MAX] = "-", text[TEXT_MAX];

        if (runner->pid > 0)
                (void) snprintf(pid, sizeof(pid), "%d", runner->pid);
        if (runner->uptime_us > 0)
                status_duration_text(runner->uptime_us, up);
        remark(runner, text, sizeof(text));
        print_name(runner->name, shape->name);
        (void) printf("  ");
        status_print_state(view, runner, STATE_WIDTH);
        (void) printf("  %*s  ", PID_WIDTH, pid);
        if (shape->numbers)
                (void) printf("%*s  %*llu  ", NUMBER_WIDTH, up, NUMBER_WIDTH, (unsigned long long) runner->restarts);
        print_cut(text, shape->why);
        (void) fputc('\n', stdout);
}

/* print_sum() - @n_hidden of the runners have no row. */
static void print_sum(const StatusView *view, const StatusResponse *status, size_t n_hidden) {
        unsigned up = 0, failed = 0;
        char text[160];
        size_t n;

        for (size_t i = 0; i < status->n_runners; i++) {
                up += status->runners[i]->state == BATON__CONTROL__RUNNER_STATUS__STATE__UP;
                failed += status->runners[i]->state == BATON__CONTROL__RUNNER_STATUS__STATE__FAILED;
        }
        n = (size_t) snprintf(text, sizeof(text), "%zu runner%s, %u up, %u failed", status->n_runners,
                              status->n_runners == 1 ? "" : "s", up, failed);
        if (n_hidden > 0)
                n += (size_t) snprintf(text + n, sizeof(text) - n, "; %zu more than fit", n_hidden);
        if (status->supervisor)
                (void) snprintf(text + n, sizeof(text) - n, "; supervisor %d%s, keeper %d", status->supervisor->pid,
                                status->supervisor->stopping ? " (stopping)" : "", status->supervisor->keeper_pid);
        print_cut(text, view->columns);
        (void) fputc('\n', stdout);
}

/* print_last() - how the supervisor came to be the one, or did not give way. */
static void print_last(const StatusView *view, const Baton__Control__TakeoverRecord *last) {
        char time[STATUS_TEXT_MAX], reason[512] = "", pause[32] = "", text[TEXT_MAX];

        status_time_text(last->time_us, time);
        if (*last->reason)
                status_takeover_reason(last, reason, sizeof(reason));
        if (last->pause_us > 0)
                (void) snprintf(pause, sizeof(pause), ", pause %.1f ms", (double) last->pause_us / USEC_PER_MSEC);
        (void) snprintf(text, sizeof(text), "last takeover %s at %s%s%s%s",
                        status_takeover_outcome((int) last->outcome), time, pause, *reason ? ": " : "", reason);
        /* Once it is read whole; over and over it has one row. */
        print_cut(text, view->rows == SIZE_MAX ? SIZE_MAX : view->columns);
        (void) fputc('\n', stdout);
}

void status_print_table(const StatusView *view, const StatusResponse *status, bool everything) {
        const Baton__Control__TakeoverRecord *last =
                everything && status->supervisor ? status->supervisor->last_takeover : NULL;
        Shape shape = shape_of(view, status);
        size_t n = status->n_runners;

        if (view->rows != SIZE_MAX)
                n = MIN(n, view->rows - 2 - (last ? 1 : 0));
        if (n > 0)
                print_heading(&shape);
        for (size_t i = 0; i < n; i++)
                print_row(view, &shape, status->runners[i]);
        if (view->terminal || n == 0)
                print_sum(view, status, status->n_runners - n);
        if (last)
                print_last(view, last);
}
