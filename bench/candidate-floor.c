/* SPDX-License-Identifier: Apache-2.0 */

/* Candidate floor: the bare loop of floor.c, which every other candidate is compared with. */

#include <protobuf-c/protobuf-c.h>
#include <stdio.h>

#include "bench/floor.h"

static const char *version(void) {
        static char text[64];

        (void) snprintf(text, sizeof(text), "protobuf-c %s", protobuf_c_version());
        return text;
}

static void serve(const CandidateOptions *options, const Meeting *meeting) {
        floor_serve(meeting->fd, options->answer);
}

static void open_client(const CandidateOptions *options, Meeting *meeting) {
        (void) options;
        floor_open(meeting->fd);
}

int main(int argc, char **argv) {
        static const Candidate candidate = { "floor", version, serve, open_client, floor_run, floor_close };

        return candidate_main(&candidate, argc, argv);
}
