#pragma once
/* SPDX-License-Identifier: Apache-2.0 */

/* The table of runners, fitted to where it is shown. */

#include <stdbool.h>
#include <stddef.h>

#include "client/control.h"

typedef struct StatusView StatusView;

/* Where standard output goes. */
struct StatusView {
        bool terminal, colour;
        size_t columns; /* SIZE_MAX: no end */
        size_t rows;    /* that can be seen at once, where it is drawn over and over; else SIZE_MAX */
};

/* status_view_of_stdout() - @watch: it is drawn over and over. */
StatusView status_view_of_stdout(bool watch);

/* status_print_state() - padded to @width, and in its colour. */
void status_print_state(const StatusView *view, const Baton__Control__RunnerStatus *runner, int width);

/* status_print_table() - with a line about all of it on a terminal; of @everything also about the last takeover. */
void status_print_table(const StatusView *view, const Baton__Control__StatusResponse *status, bool everything);
