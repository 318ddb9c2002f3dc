/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Log ring: what is in the memfd, and why it is right after a SIGKILL between any two instructions.
 *
 *     page 0      header: name, sizes, two states and which of them holds; head and target of each stream
 *     stages      one per stream: bytes as they came, of which no lines have been made yet
 *     records     the ring: one record per line, fixed part first, a multiple of 8 bytes; none wraps around the end
 *
 * Bytes come into a stage by way of the scratch pipe (log-scratch.c), committed by one store of the stream's head. Lines
 * are made of them here (framing). Everything that framing changes, the records' head and tail, numbers, counters, what of
 * the stage is used up, is one LogRingState; there are two, a change is made in the one that does not hold, and one store
 * of header->active makes it hold. So a byte is either still in its stage or in a record, a record is whole and has its
 * number, and the length of the file agrees with the position up to which it was written. Records that are dropped for
 * new ones are taken off (tail) by a commit of their own before their bytes are written over.
 *
 * Framing reads what is in the stage and writes what is behind the head, neither of which anybody else reads: done again
 * after a crash it comes out the same, but for the time.
 *
 * A kill stops a process between instructions, and memory that two processes map is one and the same: the order of the
 * stores in the program is the order that the next supervisor finds. Release stores keep the compiler to it. This is not
 * a protection against a crash of the machine, for which there is the file.
 */

#include "supervisor/log-ring.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fd.h"
#include "common/memfd.h"
#include "supervisor/log-ring-internal.h"

#define ALIGN8(_n) (((_n) + (size_t) 7) & ~(size_t) 7)

/* Text follows it, of a record then the details and their strings with their NULs. */
typedef struct Record {
        uint32_t size; /* of all of it; 0: the next one is at the beginning of the ring */
        uint32_t back; /* how far before this one the one before it begins; 0: this is the first of all */
        uint64_t seq, time_us, monotonic_us, instance;
        int32_t pid;
        uint16_t text_size;
        uint8_t source;
        uint8_t partial;
} Record;

typedef struct RecordDetails {
        uint32_t level, line;
        uint16_t target_size, file_size; /* with NUL */
} RecordDetails;

enum {
        RECORD_MAX = ALIGN8(sizeof(Record) + sizeof(RecordDetails) + LOG_TEXT_MAX + 4 + 2 * (LOG_TARGET_MAX + 1)),
};

/* ----------------------------------------------------------------------------------------------------------- the memory */

static size_t page_align(size_t size) {
        size_t page = (size_t) sysconf(_SC_PAGESIZE);

        return (size + page - 1) / page * page;
}

static size_t stages_offset(void) {
        return page_align(sizeof(LogRingHeader));
}

static size_t records_offset(void) {
        return stages_offset() + (size_t) LOG_RING_STREAMS * LOG_RING_STAGE_SIZE;
}

static LogRing *wrap(int *fd, void *memory, size_t mapped) {
        LogRing *ring = calloc(1, sizeof(*ring));

        if (!ring) {
                (void) munmap(memory, mapped);
                return NULL;
        }
        ring->fd = fd_take(fd);
        ring->mapped = mapped;
        ring->header = memory;
        ring->stages = (uint8_t *) memory + stages_offset();
        ring->records = (uint8_t *) memory + records_offset();
        ring->size = mapped - records_offset();
        return ring;
}

int log_ring_new(LogRing **ret_ring, const char *name, uint64_t id, size_t size) {
        size_t mapped = records_offset() + page_align(size);
        _cleanup_fd_ int fd = -1;
        LogRing *ring;
        void *memory;
        int r;

        assert(id != 0 && size >= 2 * RECORD_MAX);
        r = memfd_shared("baton-log", mapped, 0, &fd, &memory);
        if (r < 0)
                return r;
        ring = wrap(&fd, memory, mapped);
        if (!ring)
                return -ENOMEM;
        ring->header->magic = LOG_RING_MAGIC;
        ring->header->id = id;
        ring->header->size = ring->size;
        (void) snprintf(ring->header->name, sizeof(ring->header->name), "%s", name);
        ring->header->states[0].first_seq = ring->header->states[0].next_seq = 1;
        *ret_ring = ring;
        return 0;
}

/* is_sound() - the memory was only ever ours, so that what is looked for is another version, not malice. */
static bool is_sound(const LogRing *ring) {
        const LogRingHeader *header = ring->header;

        return header->magic == LOG_RING_MAGIC && header->size == ring->size && header->id != 0 &&
               header->active < 2 && memchr(header->name, '\0', sizeof(header->name));
}

int log_ring_open(LogRing **ret_ring, int fd_consume) {
        _cleanup_fd_ int fd = fd_consume;
        LogRing *ring;
        struct stat file;
        void *memory;
        int r;

        if (fstat(fd, &file) < 0)
                return -errno;
        if ((size_t) file.st_size < records_offset() + 2 * RECORD_MAX)
                return -EINVAL;
        r = memfd_check(fd, (uint64_t) file.st_size, F_SEAL_SHRINK | F_SEAL_GROW);
        if (r < 0)
                return r == -EMFILE ? r : -EINVAL;
        memory = mmap(NULL, (size_t) file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (memory == MAP_FAILED)
                return -errno;
        ring = wrap(&fd, memory, (size_t) file.st_size);
        if (!ring)
                return -ENOMEM;
        if (!is_sound(ring)) {
                log_ring_free(ring);
                return -EINVAL;
        }
        *ret_ring = ring;
        return 0;
}

LogRing *log_ring_free(LogRing *ring) {
        if (!ring)
                return NULL;
        (void) munmap(ring->header, ring->mapped);
        fd_close(ring->fd);
        free(ring);
        return NULL;
}

int log_ring_fd(const LogRing *ring) {
        return ring->fd;
}

uint64_t log_ring_id(const LogRing *ring) {
        return ring->header->id;
}

const char *log_ring_name(const LogRing *ring) {
        return ring->header->name;
}

size_t log_ring_size(const LogRing *ring) {
        return ring->size;
}

const LogRingState *log_ring_state(const LogRing *ring) {
        return &ring->header->states[ring->header->active];
}

static void commit(LogRing *ring, const LogRingState *state) {
        uint32_t other = !ring->header->active;

        ring->header->states[other] = *state;
        __atomic_store_n(&ring->header->active, other, __ATOMIC_RELEASE);
}

/* ---------------------------------------------------------------------------------------------------------- the records */

static Record *record_at(const LogRing *ring, uint64_t position) {
        return (Record *) (void *) (ring->records + position % ring->size);
}

/* settle() - the position of the record that comes at @position or, where what is left of the ring is skipped, after it. */
static uint64_t settle(const LogRing *ring, uint64_t head, uint64_t position) {
        if (position < head && record_at(ring, position)->size == 0)
                position += ring->size - position % ring->size;
        return position;
}

static void drop_oldest(const LogRing *ring, LogRingState *state) {
        uint64_t position = settle(ring, state->head, state->tail);
        const Record *record = record_at(ring, position);

        state->tail = position + record->size;
        state->first_seq = record->seq + 1;
        if (state->file.wanted && position >= state->file.position) {
                state->file.position = state->tail;
                state->dropped++;
        }
}

/*
 * make_room() - for a record of @size bytes at @state's head, which may move to the beginning of the ring. More is dropped
 * than is needed now, so that not each record is a commit. False: what would have to go is to be kept.
 */
static bool make_room(LogRing *ring, LogRingState *state, size_t size, uint64_t keep) {
        uint64_t to_end = ring->size - state->head % ring->size, skip = size > to_end ? to_end : 0;
        uint64_t end = state->head + skip + size, least = end > ring->size ? end - ring->size : 0, target;

        if (state->tail < least) {
                if (keep < least)
                        return false;
                target = MIN(least + ring->size / 16, keep);
                /* Where the end of the ring was skipped, the oldest line is behind that: it may be the first to be kept. */
                while (state->tail < target) {
                        state->tail = settle(ring, state->head, state->tail);
                        if (state->tail >= MIN(target, state->head))
                                break;
                        drop_oldest(ring, state);
                }
                commit(ring, state);
        }
        if (skip > 0) {
                record_at(ring, state->head)->size = 0;
                state->head += skip;
        }
        return true;
}

static uint8_t *put(uint8_t *to, const void *bytes, size_t size) {
        if (size > 0)
                memcpy(to, bytes, size);
        return to + size;
}

static size_t detail_size(const char *text) {
        return text ? strnlen(text, LOG_TARGET_MAX) : 0;
}

static void put_details(uint8_t *to, const LogLine *line) {
        RecordDetails details = {
                .level = line->level,
                .line = line->line,
                .target_size = (uint16_t) (detail_size(line->target) + 1),
                .file_size = (uint16_t) (detail_size(line->file) + 1),
        };

        to = put(to, &details, sizeof(details));
        to = put(to, line->target, details.target_size - 1U);
        *to++ = '\0';
        to = put(to, line->file, details.file_size - 1U);
        *to = '\0';
}

/* The details are read where they are: they begin at a multiple of 4. */
static size_t details_offset(size_t text_size) {
        return sizeof(Record) + ((text_size + 3) & ~(size_t) 3);
}

static size_t record_size(const LogLine *line, size_t text_size) {
        if (line->source != LOG_SOURCE_RECORD)
                return ALIGN8(sizeof(Record) + text_size);
        return ALIGN8(details_offset(text_size) + sizeof(RecordDetails) + detail_size(line->target) +
                      detail_size(line->file) + 2);
}

/* append() - one line, of at most LOG_TEXT_MAX bytes, into @state. False: no room. */
static bool append(LogRing *ring, LogRingState *state, const LogLine *line, uint64_t keep) {
        size_t size = record_size(line, line->size);
        Record *record;

        if (!make_room(ring, state, size, keep))
                return false;
        record = record_at(ring, state->head);
        *record = (Record){
                .size = (uint32_t) size,
                .back = (uint32_t) (state->lines > 0 ? MIN(state->head - state->last, (uint64_t) UINT32_MAX) : 0),
                .seq = state->next_seq,
                .time_us = line->time_us,
                .monotonic_us = line->monotonic_us,
                .instance = line->instance,
                .pid = line->pid,
                .text_size = (uint16_t) line->size,
                .source = (uint8_t) line->source,
                .partial = line->partial,
        };
        (void) put((uint8_t *) (record + 1), line->text, line->size);
        if (line->source == LOG_SOURCE_RECORD)
                put_details((uint8_t *) record + details_offset(line->size), line);
        state->last = state->head;
        state->head += size;
        state->next_seq++;
        state->lines++;
        state->bytes += line->size;
        return true;
}

/* ---------------------------------------------------------------------------------------------------------- the streams */

uint8_t *log_ring_stage(const LogRing *ring, int stream) {
        return ring->stages + (size_t) stream * LOG_RING_STAGE_SIZE;
}

static uint64_t head_of(const LogRing *ring, int stream) {
        return ring->header->streams[stream].head;
}

size_t log_ring_waiting(const LogRing *ring, int stream) {
        return (size_t) (head_of(ring, stream) - log_ring_state(ring)->streams[stream].taken);
}

int log_ring_claim(LogRing *ring, uint64_t instance, pid_t pid, LogSource source) {
        LogRingState state = *log_ring_state(ring);
        int found = -EBUSY;

        for (int i = LOG_RING_STREAMS - 1; i >= 0; i--) {
                const LogRingStream *stream = &state.streams[i];

                if (stream->instance == instance && stream->source == source && !stream->ended) {
                        found = i;
                        break;
                }
                if (stream->instance == 0)
                        found = i;
        }
        if (found < 0)
                return found;
        if (state.streams[found].instance == 0)
                state.streams[found] = (LogRingStream){
                        .instance = instance,
                        .source = (uint8_t) source,
                        .taken = head_of(ring, found),
                };
        if (state.streams[found].pid == pid &&
            state.streams[found].instance == log_ring_state(ring)->streams[found].instance)
                return found;
        state.streams[found].pid = pid;
        commit(ring, &state);
        return found;
}

void log_ring_end(LogRing *ring, int stream) {
        LogRingState state = *log_ring_state(ring);

        state.streams[stream].ended = true;
        commit(ring, &state);
}

/* cut() - the next line of @size bytes @text: how long it is, and how many bytes it takes. False: it has not ended. */
static bool cut(const uint8_t *text, size_t size, bool ended, LogLine *ret_line, size_t *ret_taken) {
        const uint8_t *newline = memchr(text, '\n', MIN(size, (size_t) LOG_TEXT_MAX + 1));

        ret_line->text = (const char *) text;
        ret_line->partial = false;
        if (newline) {
                ret_line->size = (size_t) (newline - text);
                *ret_taken = ret_line->size + 1;
                return true;
        }
        if (size > LOG_TEXT_MAX) {
                ret_line->partial = true;
                *ret_taken = ret_line->size = LOG_TEXT_MAX;
                return true;
        }
        *ret_taken = ret_line->size = size;
        return ended && size > 0;
}

/*
 * tidy() - what is left moves to the front of its stage, unless it would be written over itself. Commits of its own: before
 * the one that frees the front, what is there is not a line yet.
 */
static void tidy(LogRing *ring, LogRingState *state, int stream) {
        LogRingStream *in = &state->streams[stream];
        size_t left = (size_t) (head_of(ring, stream) - in->taken);
        uint8_t *stage = log_ring_stage(ring, stream);

        commit(ring, state);
        if (in->begin == 0 || in->begin < left)
                return;
        memcpy(stage, stage + in->begin, left);
        in->begin = 0;
        commit(ring, state);
}

/* retire() - of one that has ended and is empty. Its pages go back: it may have been the end of a chatty one. */
static void retire(LogRing *ring, LogRingState *state, int stream) {
        state->streams[stream] = (LogRingStream){ 0 };
        commit(ring, state);
        (void) madvise(log_ring_stage(ring, stream), LOG_RING_STAGE_SIZE, MADV_REMOVE);
}

bool log_ring_frame(LogRing *ring, int stream, uint64_t keep) {
        LogRingState state = *log_ring_state(ring);
        LogRingStream *in = &state.streams[stream];
        const uint8_t *stage = log_ring_stage(ring, stream);
        LogLine line = {
                .time_us = clock_wall(),
                .monotonic_us = clock_now(),
                .instance = in->instance,
                .pid = in->pid,
                .source = (LogSource) in->source,
        };
        bool done = true;
        size_t taken;

        while (cut(stage + in->begin, (size_t) (head_of(ring, stream) - in->taken), in->ended, &line, &taken)) {
                done = append(ring, &state, &line, keep);
                if (!done)
                        break;
                in->begin += (uint32_t) taken;
                in->taken += taken;
        }
        if (done && in->ended) {
                retire(ring, &state, stream);
                return true;
        }
        tidy(ring, &state, stream);
        return done;
}

/* ------------------------------------------------------------------------------------------------------- other lines */

uint64_t log_ring_record_seq(const LogRing *ring, uint64_t instance) {
        const LogRingState *state = log_ring_state(ring);

        for (size_t i = 0; i < ARRAY_SIZE(state->records); i++)
                if (state->records[i].instance == instance)
                        return state->records[i].seq;
        return 0;
}

/* note_record() - in the place of its instance, else in that of the oldest one. */
static void note_record(LogRingState *state, uint64_t instance, uint64_t seq) {
        size_t place = 0;

        for (size_t i = 0; i < ARRAY_SIZE(state->records); i++) {
                if (state->records[i].instance == instance) {
                        place = i;
                        break;
                }
                if (state->records[i].instance < state->records[place].instance)
                        place = i;
        }
        state->records[place].instance = instance;
        state->records[place].seq = seq;
}

void log_ring_append(LogRing *ring, const LogLine *line, uint64_t record_seq) {
        LogRingState state = *log_ring_state(ring);
        LogLine piece = *line;
        size_t left = line->size;

        piece.monotonic_us = clock_now();
        if (piece.time_us == 0)
                piece.time_us = clock_wall();
        do {
                piece.size = MIN(left, (size_t) LOG_TEXT_MAX);
                piece.partial = left > LOG_TEXT_MAX || line->partial;
                (void) append(ring, &state, &piece, LOG_RING_KEEP_NOTHING);
                piece.text += piece.size;
                left -= piece.size;
        } while (left > 0);
        if (record_seq > 0)
                note_record(&state, line->instance, record_seq);
        commit(ring, &state);
}

void log_ring_set_file(LogRing *ring, const LogRingFile *file) {
        LogRingState state = *log_ring_state(ring);

        state.file = *file;
        commit(ring, &state);
}

/* -------------------------------------------------------------------------------------------------------------- reading */

bool log_ring_read(const LogRing *ring, uint64_t *position, LogLine *ret_line) {
        const LogRingState *state = log_ring_state(ring);
        uint64_t at = settle(ring, state->head, MAX(*position, state->tail));
        const Record *record = record_at(ring, at);

        if (at >= state->head)
                return false;
        *ret_line = (LogLine){
                .seq = record->seq,
                .time_us = record->time_us,
                .monotonic_us = record->monotonic_us,
                .instance = record->instance,
                .pid = record->pid,
                .source = (LogSource) record->source,
                .partial = record->partial,
                .target = "",
                .file = "",
                .text = (const char *) (record + 1),
                .size = record->text_size,
        };
        if (record->source == LOG_SOURCE_RECORD) {
                const uint8_t *from = (const uint8_t *) record + details_offset(record->text_size);
                const RecordDetails *details = (const RecordDetails *) (const void *) from;

                ret_line->level = details->level;
                ret_line->line = details->line;
                ret_line->target = (const char *) (details + 1);
                ret_line->file = ret_line->target + details->target_size;
        }
        *position = at + record->size;
        return true;
}

bool log_ring_back(const LogRing *ring, uint64_t *position) {
        const LogRingState *state = log_ring_state(ring);
        uint64_t at;

        if (state->first_seq == state->next_seq)
                return false;
        if (*position >= state->head) {
                *position = state->last;
                return true;
        }
        at = *position - record_at(ring, *position)->back;
        if (record_at(ring, *position)->seq <= state->first_seq)
                return false;
        *position = at;
        return true;
}

uint64_t log_ring_find(const LogRing *ring, uint64_t seq) {
        const LogRingState *state = log_ring_state(ring);
        uint64_t position = state->head, before = state->head;

        if (seq <= state->first_seq)
                return state->tail;
        if (seq >= state->next_seq)
                return state->head;
        while (log_ring_back(ring, &before) && record_at(ring, before)->seq >= seq)
                position = before;
        return position;
}
