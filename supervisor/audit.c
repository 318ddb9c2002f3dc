/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Audit. The line is written when the call is answered, since only then is it known what came of it; one that is refused
 * is told, too: it is what an administrator wants to see first. What of it is a client's words is made fit for a
 * terminal.
 */

#include "supervisor/audit.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/text.h"

typedef struct Audit {
        Events *events;
        char who[AUDIT_WHO_SIZE];
        char what[AUDIT_WHAT_SIZE];
} Audit;

const char *audit_who(const struct ucred *client, char text[AUDIT_WHO_SIZE]) {
        char path[32], comm[17] = "?";
        _cleanup_fd_ int fd = -1;
        ssize_t n;

        (void) snprintf(path, sizeof(path), "/proc/%d/comm", client->pid);
        fd = client->pid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        n = fd >= 0 ? read(fd, comm, sizeof(comm) - 1) : -1;
        if (n > 0) {
                comm[n] = '\0';
                comm[strcspn(comm, "\n")] = '\0';
        }
        (void) snprintf(text, AUDIT_WHO_SIZE, "uid %u, pid %d (%s)", client->uid, client->pid, comm);
        return text;
}

/* make_printable() - it goes to a log and to terminals, and parts of it are a client's. */
static void make_printable(char *text) {
        (void) text_mend(text);
        for (char *p = text; *p; p++)
                if ((unsigned char) *p < ' ' || *p == '\x7f')
                        *p = '?';
}

static void tell(Events *events, const char *who, const char *what, const char *end, const char *message) {
        char text[EVENT_TEXT_MAX + 1];
        const Event event = { .kind = EVENT_COMMAND, .text = text };

        (void) snprintf(text, sizeof(text), "%s: %s: %s%s%s", who, what, end, *message ? ": " : "",
                        text_past_subject(message, what));
        make_printable(text);
        log_notice("command: %s", text);
        events_publish(events, &event);
}

static void ended(Call *call, Status status, const char *message, void *userdata) {
        _cleanup_free_ Audit *audit = userdata;

        (void) call;
        tell(audit->events, audit->who, audit->what, status_name(status), message);
}

void audit_call(Events *events, Call *call, const char *who, const char *what) {
        Audit *audit = malloc(sizeof(*audit));

        if (!audit) {
                tell(events, who, what, "asked", "");
                return;
        }
        audit->events = events;
        (void) snprintf(audit->who, sizeof(audit->who), "%s", who);
        (void) snprintf(audit->what, sizeof(audit->what), "%s", what);
        call_on_answer(call, ended, audit);
}
