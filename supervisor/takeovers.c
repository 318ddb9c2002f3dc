/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Takeovers, the memory: a memfd of fixed size, sealed against any other, of which only the pages that were written take
 * room. A header and a ring of entries, each in a cell whose size the header names: a program that knows more of an entry
 * than the one that made the memory keeps what fits, one that knows less leaves the rest alone. So two versions may follow
 * each other in both directions and write into the same memory.
 *
 * An entry is there when `begun' counts it. A SIGKILL between any two stores leaves at worst a reason that is cut off.
 * What is read was written by another process, which may have crashed for having written anywhere: numbers are bounded and
 * strings are ended where they are read.
 *
 * Without memory, or where the keeper has no room, the history is that of this process; nothing else depends on it.
 */

#include "supervisor/takeovers.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/text.h"

#define MEMORY_MAGIC   UINT64_C(0x73726576616c6574)
#define MEMORY_VERSION 1u
#define MEMORY_SIZE    (64u * 1024u)

enum {
        CELL_MIN = 256, /* the numbers of an entry, at least */
        CELL_MAX = (MEMORY_SIZE - 256) / TAKEOVERS_KEPT,
        OUTCOMES_MAX = 16,
        DEATHS_MAX = 16,
};

typedef struct Memory {
        uint64_t magic;
        uint32_t version, cell; /* bytes of an entry */
        uint64_t begun;         /* entries ever */
        uint64_t last_pause_us;
        uint64_t outcomes[OUTCOMES_MAX];
        uint8_t spare[256 - 160];
        uint8_t cells[];
} Memory;

static_assert(sizeof(Memory) == 256, "the header's size is part of the format");
static_assert(sizeof(TakeoverEntry) <= CELL_MAX, "all entries fit");
static_assert((int) _TAKEOVER_OUTCOME_N <= (int) OUTCOMES_MAX, "all counters fit");
static_assert(offsetof(TakeoverEntry, reason) >= CELL_MIN / 2, "the numbers come first");

typedef struct Death {
        KeeperDeath death;
        char how[64];
} Death;

struct Takeovers {
        KeeperLink *link; /* NULL: nothing is stored */
        Events *events;   /* may be NULL */
        Memory *memory;   /* NULL: there is none yet */
        TakeoverEntry current;
        bool is_current; /* the above is under way, and ours to write */
        Death deaths[DEATHS_MAX];
        size_t n_deaths;
};

static const char *const phase_names[] = {
        [TAKEOVER_PHASE_CHECK] = "check",   [TAKEOVER_PHASE_START] = "start", [TAKEOVER_PHASE_COPY] = "copy",
        [TAKEOVER_PHASE_FREEZE] = "freeze", [TAKEOVER_PHASE_DELTA] = "delta", [TAKEOVER_PHASE_COMMIT] = "commit",
        [TAKEOVER_PHASE_RESUME] = "resume",
};
static_assert(ARRAY_SIZE(phase_names) == _TAKEOVER_PHASE_N, "a name for each");

static const char *const outcome_names[] = {
        [TAKEOVER_UNDER_WAY] = "under_way",     [TAKEOVER_DONE] = "done",       [TAKEOVER_CHECKED] = "checked",
        [TAKEOVER_ROLLED_BACK] = "rolled_back", [TAKEOVER_CUT_OFF] = "cut_off", [TAKEOVER_RECOVERED] = "recovered",
        [TAKEOVER_WENT_BACK] = "went_back",
};
static_assert(ARRAY_SIZE(outcome_names) == _TAKEOVER_OUTCOME_N, "a name for each");

const char *takeover_phase_name(unsigned phase) {
        return phase < ARRAY_SIZE(phase_names) ? phase_names[phase] : "unknown";
}

const char *takeover_outcome_name(unsigned outcome) {
        return outcome < ARRAY_SIZE(outcome_names) ? outcome_names[outcome] : "unknown";
}

uint64_t takeover_phase_us(const TakeoverEntry *entry, TakeoverPhase phase) {
        uint64_t begun = entry->phase_us[phase], end = entry->ended_us;

        if (begun == 0)
                return 0;
        for (unsigned i = phase + 1; i < _TAKEOVER_PHASE_N; i++)
                if (entry->phase_us[i] > 0) {
                        end = entry->phase_us[i];
                        break;
                }
        return end > begun ? end - begun : 0;
}

/* ----------------------------------------------------------------------------------------------------------- the memory */

int takeovers_new(Takeovers **ret_takeovers, KeeperLink *link, Events *events) {
        Takeovers *takeovers = calloc(1, sizeof(*takeovers));

        if (!takeovers)
                return -ENOMEM;
        takeovers->link = link;
        takeovers->events = events;
        *ret_takeovers = takeovers;
        return 0;
}

Takeovers *takeovers_free(Takeovers *takeovers) {
        if (!takeovers)
                return NULL;
        if (takeovers->memory)
                (void) munmap(takeovers->memory, MEMORY_SIZE);
        free(takeovers);
        return NULL;
}

/* make() - the memory, when there is something to be kept. The keeper's answer decides nothing: we go on with it. */
static int make(Takeovers *takeovers) {
        _cleanup_fd_ int fd = -1;
        void *memory;
        int r;

        if (takeovers->memory)
                return 0;
        r = memfd_shared("baton-takeovers", MEMORY_SIZE, 0, &fd, &memory);
        if (r < 0)
                return r;
        takeovers->memory = memory;
        takeovers->memory->version = MEMORY_VERSION;
        takeovers->memory->cell = sizeof(TakeoverEntry);
        takeovers->memory->magic = MEMORY_MAGIC;
        if (takeovers->link)
                (void) keeper_link_replace(takeovers->link, 0, KEEPER_FD_HISTORY, 0, fd, NULL, NULL);
        return 0;
}

static bool is_usable(const Memory *memory) {
        return memory->magic == MEMORY_MAGIC && memory->version == MEMORY_VERSION && memory->cell >= CELL_MIN &&
               memory->cell <= CELL_MAX && memory->cell % 8 == 0;
}

int takeovers_adopt(Takeovers *takeovers, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        void *memory;
        int r;

        if (takeovers->memory)
                return -EEXIST;
        r = memfd_check(fd, MEMORY_SIZE, F_SEAL_SHRINK | F_SEAL_GROW);
        if (r < 0)
                return r;
        memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                return -errno;
        if (!is_usable(memory)) {
                (void) munmap(memory, MEMORY_SIZE);
                return -EPROTO;
        }
        takeovers->memory = memory;
        return 0;
}

static size_t cell_size(const Memory *memory) {
        uint32_t cell = memory->cell;

        return cell < CELL_MIN || cell > CELL_MAX ? CELL_MIN : cell;
}

static uint8_t *cell_of(Memory *memory, uint64_t number) {
        return memory->cells + (number - 1) % TAKEOVERS_KEPT * cell_size(memory);
}

static void write_entry(Takeovers *takeovers) {
        Memory *memory = takeovers->memory;
        const TakeoverEntry *entry = &takeovers->current;

        if (memory)
                memcpy(cell_of(memory, entry->number), entry, MIN(sizeof(*entry), cell_size(memory)));
}

/* read_entry() - false: it is not there any more, or was never whole. */
static bool read_entry(const Memory *memory, uint64_t number, TakeoverEntry *ret_entry) {
        TakeoverEntry entry = { 0 };

        memcpy(&entry, cell_of((Memory *) memory, number), MIN(sizeof(entry), cell_size(memory)));
        if (entry.number != number || entry.outcome >= _TAKEOVER_OUTCOME_N || entry.phase >= _TAKEOVER_PHASE_N)
                return false;
        entry.reason[sizeof(entry.reason) - 1] = '\0';
        entry.program[sizeof(entry.program) - 1] = '\0';
        (void) text_mend(entry.reason);
        (void) text_mend(entry.program);
        *ret_entry = entry;
        return true;
}

bool takeovers_copy(const Takeovers *takeovers, size_t i, TakeoverEntry *ret_entry) {
        const Memory *memory = takeovers->memory;
        uint64_t begun = memory ? memory->begun : 0;

        return i < TAKEOVERS_KEPT && i < begun && read_entry(memory, begun - i, ret_entry);
}

TakeoverCounts takeovers_counts(const Takeovers *takeovers) {
        const Memory *memory = takeovers->memory;
        TakeoverCounts counts = { 0 };

        for (size_t i = 0; memory && i < _TAKEOVER_OUTCOME_N; i++)
                counts.outcomes[i] = memory->outcomes[i];
        counts.last_pause_us = memory ? memory->last_pause_us : 0;
        return counts;
}

/* ---------------------------------------------------------------------------------------------------------- one of them */

/* begin() - an entry that is ours to write. False: there is no memory for it. */
static bool begin(Takeovers *takeovers, const TakeoverEntry *entry) {
        int r = make(takeovers);

        if (r < 0) {
                log_warning("this is not kept for 'baton takeovers': %s", strerror(-r));
                return false;
        }
        takeovers->current = *entry;
        takeovers->current.number = takeovers->memory->begun + 1;
        takeovers->is_current = true;
        write_entry(takeovers);
        __atomic_store_n(&takeovers->memory->begun, takeovers->current.number, __ATOMIC_RELEASE);
        return true;
}

/* resume() - whoever wrote before us has left something under way. */
static bool resume(Takeovers *takeovers) {
        TakeoverEntry entry;

        if (takeovers->is_current)
                return true;
        if (!takeovers_copy(takeovers, 0, &entry) || entry.outcome != TAKEOVER_UNDER_WAY)
                return false;
        takeovers->current = entry;
        takeovers->is_current = true;
        return true;
}

void takeovers_begin(Takeovers *takeovers, uint32_t generation, const char *program, bool check) {
        uint64_t now = clock_now();
        TakeoverEntry entry = {
                .time_us = clock_wall(),
                .begun_us = now,
                .former_generation = generation,
                .former_pid = getpid(),
                .check = check,
        };
        size_t length = program ? strlen(program) : 0;

        if (resume(takeovers))
                takeovers_end(takeovers, TAKEOVER_CUT_OFF, "another one was begun");
        entry.phase_us[TAKEOVER_PHASE_CHECK] = now;
        if (length > 0)
                (void) snprintf(entry.program, sizeof(entry.program), "%s",
                                program + length - MIN(length, sizeof(entry.program) - 1));
        (void) begin(takeovers, &entry);
}

void takeovers_phase_at(Takeovers *takeovers, TakeoverPhase phase, uint64_t begun_us) {
        if (!resume(takeovers))
                return;
        takeovers->current.phase = phase;
        takeovers->current.phase_us[phase] = begun_us;
        write_entry(takeovers);
}

void takeovers_phase(Takeovers *takeovers, TakeoverPhase phase) {
        takeovers_phase_at(takeovers, phase, clock_now());
}

TakeoverEntry *takeovers_current(Takeovers *takeovers) {
        return resume(takeovers) ? &takeovers->current : NULL;
}

/* ------------------------------------------------------------------------------------------------------- telling of it */

enum { TEXT_SIZE = EVENT_TEXT_MAX + 1 };

/* describe_phases() - "check 0.1, start 4.0, copy 11.9 ms". */
static void describe_phases(const TakeoverEntry *entry, char *text, size_t size) {
        size_t n = 0;

        *text = '\0';
        for (unsigned i = 0; i < _TAKEOVER_PHASE_N && n < size; i++)
                if (entry->phase_us[i] > 0)
                        n += (size_t) snprintf(text + n, size - n, "%s%s %.1f", n ? ", " : "", takeover_phase_name(i),
                                               (double) takeover_phase_us(entry, (TakeoverPhase) i) / USEC_PER_MSEC);
        if (n > 0 && n < size)
                (void) snprintf(text + n, size - n, " ms");
}

static void tell(const Takeovers *takeovers, EventKind kind, const char *text) {
        const TakeoverEntry *entry = &takeovers->current;

        events_publish(takeovers->events, &(Event){ .kind = kind,
                                                    .pid = entry->pid > 0 ? entry->pid : entry->former_pid,
                                                    .number = entry->generation ?: entry->former_generation,
                                                    .text = text });
}

static void tell_takeover(const Takeovers *takeovers) {
        const TakeoverEntry *entry = &takeovers->current;
        char phases[160], text[TAKEOVER_REASON_SIZE + TEXT_SIZE];

        describe_phases(entry, phases, sizeof(phases));
        switch (entry->outcome) {
        case TAKEOVER_DONE:
                log_info("generation %u follows generation %u (pid %d): connections %u, runners %u, calls %u; pause "
                         "%" PRIu64 " us (%s)",
                         entry->generation, entry->former_generation, entry->former_pid, entry->connections,
                         entry->runners, entry->calls, entry->pause_us, phases);
                (void) snprintf(text, sizeof(text), "done: pid %d follows pid %d, pause %" PRIu64 " us (%s)",
                                entry->pid, entry->former_pid, entry->pause_us, phases);
                break;
        case TAKEOVER_CHECKED:
                log_info("takeover: the rehearsal went well (%s)", phases);
                (void) snprintf(text, sizeof(text), "rehearsed (%s)", phases);
                break;
        case TAKEOVER_CUT_OFF:
                log_warning("takeover cut off in phase %s: %s (%s)", takeover_phase_name(entry->phase), entry->reason,
                            phases);
                (void) snprintf(text, sizeof(text), "cut off in phase %s: %s", takeover_phase_name(entry->phase),
                                entry->reason);
                break;
        default:
                log_warning("takeover failed in phase %s: %s; this supervisor goes on (%s)",
                            takeover_phase_name(entry->phase), entry->reason, phases);
                (void) snprintf(text, sizeof(text), "rolled back in phase %s: %s", takeover_phase_name(entry->phase),
                                entry->reason);
        }
        tell(takeovers, EVENT_TAKEOVER, text);
}

static void tell_recovery(const Takeovers *takeovers) {
        const TakeoverEntry *entry = &takeovers->current;
        char text[TAKEOVER_REASON_SIZE + TEXT_SIZE];

        (void) snprintf(text, sizeof(text), "generation %u (pid %d) %s; generation %u %s", entry->former_generation,
                        entry->former_pid, entry->reason, entry->generation,
                        entry->outcome == TAKEOVER_WENT_BACK ? "is of the program before" : "goes on");
        log_warning("recovered: %s", text);
        tell(takeovers, EVENT_RECOVERY, text);
}

/* finish() - of what is current. */
static void finish(Takeovers *takeovers, TakeoverOutcome outcome, const char *reason) {
        TakeoverEntry *entry = &takeovers->current;

        entry->ended_us = clock_now();
        entry->outcome = outcome;
        if (reason)
                (void) snprintf(entry->reason, sizeof(entry->reason), "%s", reason);
        (void) text_mend(entry->reason);
        write_entry(takeovers);
        takeovers->memory->outcomes[outcome]++;
        if (outcome == TAKEOVER_DONE)
                takeovers->memory->last_pause_us = entry->pause_us;
        takeovers->is_current = false;
}

void takeovers_end(Takeovers *takeovers, TakeoverOutcome outcome, const char *reason) {
        if (!resume(takeovers))
                return;
        finish(takeovers, outcome, reason);
        tell_takeover(takeovers);
}

/* ------------------------------------------------------------------------------------------------------------ recoveries */

void takeovers_died(Takeovers *takeovers, const KeeperDeath *death) {
        Death *kept = takeovers->n_deaths < DEATHS_MAX ? &takeovers->deaths[takeovers->n_deaths++] : NULL;

        if (!kept)
                return;
        kept->death = *death;
        (void) snprintf(kept->how, sizeof(kept->how), "%s", death->how);
        kept->death.how = kept->how;
}

/* cut_off() - the successor, where it was committed, else the predecessor. */
static void cut_off(Takeovers *takeovers) {
        const KeeperDeath *death = takeovers->n_deaths > 0 ? &takeovers->deaths[0].death : NULL;
        char reason[TAKEOVER_REASON_SIZE];

        if (!resume(takeovers))
                return;
        if (death)
                (void) snprintf(reason, sizeof(reason), "%s (pid %d) %s",
                                death->pid == takeovers->current.former_pid ? "the predecessor" : "the successor",
                                death->pid, death->how);
        takeovers_end(takeovers, TAKEOVER_CUT_OFF, death ? reason : "a supervisor died");
}

/* is_known() - told by a supervisor that died before it served. */
static bool is_known(const Takeovers *takeovers, uint32_t generation) {
        TakeoverEntry entry;

        for (size_t i = 0; takeovers_copy(takeovers, i, &entry); i++)
                if (entry.former_generation == generation &&
                    (entry.outcome == TAKEOVER_RECOVERED || entry.outcome == TAKEOVER_WENT_BACK))
                        return true;
        return false;
}

void takeovers_recovered(Takeovers *takeovers, uint32_t generation) {
        cut_off(takeovers);
        for (size_t i = 0; i < takeovers->n_deaths; i++) {
                const KeeperDeath *death = &takeovers->deaths[i].death;
                const TakeoverEntry entry = {
                        .time_us = death->time_us,
                        .former_generation = death->generation,
                        .former_pid = death->pid,
                        .generation = generation,
                        .pid = getpid(),
                        .outcome = death->went_back ? TAKEOVER_WENT_BACK : TAKEOVER_RECOVERED,
                };

                if (is_known(takeovers, death->generation))
                        continue;
                if (!begin(takeovers, &entry))
                        break;
                finish(takeovers, (TakeoverOutcome) entry.outcome, death->how);
                tell_recovery(takeovers);
        }
        takeovers->n_deaths = 0;
}
