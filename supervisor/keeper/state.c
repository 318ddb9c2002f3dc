/* SPDX-License-Identifier: Apache-2.0 */

/*
 * State: to bytes and back. Nothing in it is trusted more than its form: whatever a record names (a descriptor, a process)
 * is looked at before it is taken over, since the rehearsal is there to find what does not fit. What can be found out anew is
 * not written: the pidfd, the signals, the limits, the options, which are the arguments of the program.
 */

#include "supervisor/keeper/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/memfd.h"

enum { STATE_MAX = 1 << 30 };

/* Types of records; numbers are never reused. */
enum {
        RECORD_KEEPER = 1,
        RECORD_NOTIFY = 2,
        RECORD_ANSWER = 3,
        RECORD_SLOT = 4,
        RECORD_FD = 5,
        RECORD_DEATH = 6,
        RECORD_END = 7,
};

typedef struct StateKeeper {
        int32_t port, program, previous, lock;
        int32_t supervisor; /* its pid */
        uint32_t spoken;    /* the version of its messages */
        uint32_t generation, reigning;
        uint32_t rung, deaths; /* of the ladder */
        uint32_t on_trial, say;
        uint64_t device, inode; /* of the control socket */
        uint64_t served_us, heard_us, pinged_us, hang_us, watchdog_us;
        int32_t status;
        uint32_t reserved;
        uint64_t nofile;
} StateKeeper;

typedef struct StateNotify {
        int32_t fd;
        uint32_t size;
        uint64_t watchdog_us;
        uint8_t address[sizeof(struct sockaddr_un) + 2];
} StateNotify;

typedef struct StateAnswer {
        uint32_t serial;
        int32_t result;
} StateAnswer;

enum {
        SLOT_STARTED = 1 << 0,
        SLOT_DOOMED = 1 << 1,
        SLOT_CANCELLED = 1 << 2,
        SLOT_REPORTED = 1 << 3,
        SLOT_ACTIVE = 1 << 4,
};

typedef struct StateSlot {
        uint64_t instance;
        uint32_t state; /* KeeperSlotState */
        uint32_t flags, marks;
        int32_t pid, wait_code, wait_status;
        char name[KEEPER_NAME_SIZE];
        uint8_t record[KEEPER_RECORD_SIZE];
} StateSlot;

typedef struct StateFd {
        uint64_t instance, tag;
        uint32_t kind;
        int32_t fd;
} StateFd;

typedef struct StateEnd {
        uint64_t slots, fds; /* that were written */
} StateEnd;

/* --------------------------------------------------------------------------------------------------------------- writing */

static int add(MemfdWriter *writer, uint16_t type, const void *data, size_t size) {
        static const uint8_t zero[8];
        const StateRecord record = { .type = type, .size = (uint32_t) size };
        int r = memfd_writer_add(writer, &record, sizeof(record));

        if (r == 0)
                r = memfd_writer_add(writer, data, size);
        return r == 0 && size % 8 ? memfd_writer_add(writer, zero, 8 - size % 8) : r;
}

static int add_keeper(const Keeper *k, MemfdWriter *writer) {
        const StateKeeper state = {
                .port = k->port.fd,
                .program = k->program,
                .previous = k->previous,
                .lock = k->place.lock,
                .supervisor = k->supervisor,
                .spoken = k->port.version,
                .generation = k->generation,
                .reigning = k->reigning,
                .rung = k->ladder.rung,
                .deaths = k->ladder.deaths,
                .on_trial = k->takeover.on_trial,
                .say = k->port.say,
                .device = k->place.device,
                .inode = k->place.inode,
                .served_us = k->served_us,
                .heard_us = k->heard_us,
                .pinged_us = k->pinged_us,
                .hang_us = k->timers[TIMER_HANG],
                .watchdog_us = k->timers[TIMER_WATCHDOG],
                .status = k->status,
                .nofile = k->nofile,
        };

        return add(writer, RECORD_KEEPER, &state, sizeof(state));
}

static int add_notify(const Keeper *k, MemfdWriter *writer) {
        StateNotify state = { .fd = k->notify.fd, .size = k->notify.size, .watchdog_us = k->notify.watchdog_us };

        memcpy(state.address, &k->notify.address, sizeof(k->notify.address));
        return add(writer, RECORD_NOTIFY, &state, sizeof(state));
}

static int add_answers(const Keeper *k, MemfdWriter *writer) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < k->port.n_answers; i++) {
                size_t at = (k->port.first_answer + i) % KEEPER_WINDOW;
                const StateAnswer state = { k->port.answers[at].serial, k->port.answers[at].result };

                r = add(writer, RECORD_ANSWER, &state, sizeof(state));
        }
        return r;
}

static KeeperSlotState slot_state(const TableSlot *slot) {
        return slot->state == TABLE_RESERVED ? KEEPER_SLOT_RESERVED
               : slot->state == TABLE_BORN   ? KEEPER_SLOT_BORN
               : slot->state == TABLE_EXITED ? KEEPER_SLOT_EXITED
                                             : KEEPER_SLOT_KEPT;
}

static int add_slot(const TableSlot *slot, MemfdWriter *writer) {
        StateSlot state = {
                .instance = slot->instance,
                .state = slot_state(slot),
                .flags = slot->flags,
                .marks = (slot->started ? SLOT_STARTED : 0u) | (slot->doomed ? SLOT_DOOMED : 0u) |
                         (slot->cancelled ? SLOT_CANCELLED : 0u) | (slot->reported ? SLOT_REPORTED : 0u) |
                         (slot->active ? SLOT_ACTIVE : 0u),
                .pid = slot->pid,
                .wait_code = slot->wait_code,
                .wait_status = slot->wait_status,
        };

        memcpy(state.name, slot->name, sizeof(state.name));
        memcpy(state.record, slot->record, sizeof(state.record));
        return add(writer, RECORD_SLOT, &state, sizeof(state));
}

static int add_table(Keeper *k, MemfdWriter *writer) {
        StateEnd end = { 0 };
        size_t cursor = 0;
        TableFd *entry;
        int r = 0;

        for (TableSlot *slot = table_first(k->table); r == 0 && slot; slot = table_next(slot), end.slots++)
                r = add_slot(slot, writer);
        while (r == 0 && (entry = table_walk_fds(k->table, &cursor))) {
                const StateFd state = { entry->slot->instance, entry->tag, entry->kind, entry->fd };

                end.fds++;
                r = add(writer, RECORD_FD, &state, sizeof(state));
        }
        for (size_t i = 0; r == 0 && table_death(k->table, i); i++)
                r = add(writer, RECORD_DEATH, table_death(k->table, i), sizeof(TableDeath));
        return r == 0 ? add(writer, RECORD_END, &end, sizeof(end)) : r;
}

int state_save(Keeper *k, int *ret_memfd) {
        const StateHeader header = { .magic = STATE_MAGIC, .version = STATE_VERSION, .oldest = STATE_OLDEST };
        MemfdWriter writer = MEMFD_WRITER_NULL;
        int r = memfd_writer_open("baton-keeper", &writer);

        if (r == 0)
                r = memfd_writer_add(&writer, &header, sizeof(header));
        if (r == 0)
                r = add_keeper(k, &writer);
        if (r == 0)
                r = add_notify(k, &writer);
        if (r == 0)
                r = add_answers(k, &writer);
        if (r == 0)
                r = add_table(k, &writer);
        if (r == 0)
                r = memfd_writer_finish(&writer, ret_memfd);
        memfd_writer_close(&writer);
        return r;
}

static void set_inherit(int fd, bool inherit) {
        if (fd >= 0)
                (void) fcntl(fd, F_SETFD, inherit ? 0 : FD_CLOEXEC);
}

void state_inherit(Keeper *k, bool inherit) {
        const int own[] = { k->port.fd, k->program, k->previous, k->place.lock, k->notify.fd };
        size_t cursor = 0;
        TableFd *entry;

        for (size_t i = 0; i < ARRAY_SIZE(own); i++)
                set_inherit(own[i], inherit);
        while ((entry = table_walk_fds(k->table, &cursor)))
                set_inherit(entry->fd, inherit);
}

/* --------------------------------------------------------------------------------------------------------------- reading */

typedef struct Reader {
        Keeper *k;
        TableSlot *last; /* that was restored: the next one is older */
        StateEnd count;
        bool has_keeper, ended;
        char *reason;
} Reader;

/* Each: 0, or a negative errno, with the reason where there is more to say. */
typedef int RecordReader(Reader *reader, const void *data);

static int wrong(Reader *reader, const char *what) {
        (void) snprintf(reader->reason, STATE_REASON_SIZE, "%s", what);
        return -EPROTO;
}

/* is_listening(), is_port() - what they must be; a number may name anything. */
static bool is_listening(int fd) {
        int value = 0;
        socklen_t size = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &size) == 0 && value;
}

static bool is_port(int fd) {
        int value = 0;
        socklen_t size = sizeof(value);

        return getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &size) == 0 && value == SOCK_SEQPACKET;
}

static bool is_open(int fd) {
        return fcntl(fd, F_GETFD) >= 0;
}

static int read_keeper(Reader *reader, const void *data) {
        const StateKeeper *state = data;
        Keeper *k = reader->k;

        if (state->spoken < KEEPER_VERSION_OLDEST || state->spoken > KEEPER_VERSION) {
                (void) snprintf(reader->reason, STATE_REASON_SIZE,
                                "the supervisor speaks version %u with its keeper, this program %u to %u",
                                state->spoken, KEEPER_VERSION_OLDEST, KEEPER_VERSION);
                return -EPROTO;
        }
        if (!is_port(state->port) || state->supervisor <= 0)
                return wrong(reader, "there is no supervisor");
        if (!is_open(state->program) || (state->previous >= 0 && !is_open(state->previous)) || !is_open(state->lock))
                return wrong(reader, "a descriptor is missing");
        k->port.fd = state->port;
        k->port.version = (uint16_t) state->spoken;
        k->port.say = state->say;
        k->port.dump = PORT_DUMP_DONE;
        k->program = state->program;
        k->previous = state->previous;
        k->place = (Place){ k->options->place.socket, state->lock, state->device, state->inode };
        k->supervisor = state->supervisor;
        k->generation = state->generation;
        k->reigning = state->reigning;
        k->reign = REIGN_SERVING;
        k->has_served = true;
        k->ladder = (Ladder){ (LadderRung) MIN(state->rung, (uint32_t) LADDER_DOWN), state->deaths };
        k->takeover.on_trial = state->on_trial;
        k->served_us = state->served_us;
        k->heard_us = state->heard_us;
        k->pinged_us = state->pinged_us;
        k->timers[TIMER_HANG] = state->hang_us;
        k->timers[TIMER_WATCHDOG] = state->watchdog_us;
        k->status = state->status;
        k->nofile = state->nofile;
        reader->has_keeper = true;
        return 0;
}

static int read_notify(Reader *reader, const void *data) {
        const StateNotify *state = data;
        Notify *notify = &reader->k->notify;

        if (state->fd < 0)
                return 0;
        if (!is_open(state->fd) || state->size > sizeof(notify->address))
                return wrong(reader, "the service manager's socket is missing");
        notify->fd = state->fd;
        notify->size = state->size;
        notify->watchdog_us = state->watchdog_us;
        memcpy(&notify->address, state->address, sizeof(notify->address));
        return 0;
}

static int read_answer(Reader *reader, const void *data) {
        const StateAnswer *state = data;

        return port_answer(&reader->k->port, state->serial, state->result);
}

static int read_slot(Reader *reader, const void *data) {
        static const TableState states[_KEEPER_SLOT_STATE_N] = {
                [KEEPER_SLOT_RESERVED] = TABLE_RESERVED,
                [KEEPER_SLOT_BORN] = TABLE_BORN,
                [KEEPER_SLOT_EXITED] = TABLE_EXITED,
                [KEEPER_SLOT_KEPT] = TABLE_KEPT,
        };
        const StateSlot *state = data;
        TableSlot slot = {
                .instance = state->instance,
                .flags = state->flags,
                .pid = state->pid,
                .wait_code = state->wait_code,
                .wait_status = state->wait_status,
                .started = state->marks & SLOT_STARTED,
                .doomed = state->marks & SLOT_DOOMED,
                .cancelled = state->marks & SLOT_CANCELLED,
                .reported = state->marks & SLOT_REPORTED,
                .active = state->marks & SLOT_ACTIVE,
        };

        if (state->state >= _KEEPER_SLOT_STATE_N || (state->state == KEEPER_SLOT_BORN && state->pid <= 0))
                return wrong(reader, "a slot is in no state that there is");
        slot.state = states[state->state];
        memcpy(slot.name, state->name, sizeof(slot.name));
        memcpy(slot.record, state->record, sizeof(slot.record));
        reader->count.slots++;
        return table_restore(reader->k->table, &slot, &reader->last);
}

static int read_fd(Reader *reader, const void *data) {
        const StateFd *state = data;

        if (!is_open(state->fd))
                return wrong(reader, "a stored descriptor is missing");
        if (state->instance == 0 && state->kind == KEEPER_FD_CONTROL) {
                if (!is_listening(state->fd))
                        return wrong(reader, "the control socket does not listen");
                reader->k->listener = state->fd;
        }
        reader->count.fds++;
        return table_put(reader->k->table, state->instance, state->kind, state->tag, false, state->fd);
}

static int read_death(Reader *reader, const void *data) {
        *table_add_death(reader->k->table) = *(const TableDeath *) data;
        return 0;
}

static int read_end(Reader *reader, const void *data) {
        const StateEnd *state = data;

        if (state->slots != reader->count.slots || state->fds != reader->count.fds)
                return wrong(reader, "something of the table is missing");
        reader->ended = true;
        return 0;
}

static const struct {
        RecordReader *read;
        size_t size;
} readers[] = {
        [RECORD_KEEPER] = { read_keeper, sizeof(StateKeeper) },
        [RECORD_NOTIFY] = { read_notify, sizeof(StateNotify) },
        [RECORD_ANSWER] = { read_answer, sizeof(StateAnswer) },
        [RECORD_SLOT] = { read_slot, sizeof(StateSlot) },
        [RECORD_FD] = { read_fd, sizeof(StateFd) },
        [RECORD_DEATH] = { read_death, sizeof(TableDeath) },
        [RECORD_END] = { read_end, sizeof(StateEnd) },
};

static int read_record(Reader *reader, const StateRecord *record, const uint8_t *data) {
        union {
                StateKeeper keeper;
                StateNotify notify;
                StateSlot slot;
                TableDeath death;
                uint8_t bytes[512];
        } known = { .bytes = { 0 } };
        int r;

        if (record->type >= ARRAY_SIZE(readers) || !readers[record->type].read)
                return record->flags & STATE_OPTIONAL ? 0 : wrong(reader, "it holds what this program does not know");
        memcpy(known.bytes, data, MIN((size_t) record->size, readers[record->type].size));
        r = readers[record->type].read(reader, &known);
        if (r < 0 && !*reader->reason)
                (void) snprintf(reader->reason, STATE_REASON_SIZE, "record %u: %s", record->type, strerror(-r));
        return r;
}

static int read_records(Reader *reader, const uint8_t *data, size_t size) {
        while (size >= sizeof(StateRecord) && !reader->ended) {
                StateRecord record;
                size_t padded;
                int r;

                memcpy(&record, data, sizeof(record));
                padded = sizeof(record) + (record.size + (size_t) 7) / 8 * 8;
                if (padded > size)
                        return wrong(reader, "it is cut off");
                r = read_record(reader, &record, data + sizeof(record));
                if (r < 0)
                        return r;
                data += padded;
                size -= padded;
        }
        return reader->ended && reader->has_keeper && reader->k->listener >= 0 ? 0 : wrong(reader, "it is cut off");
}

int state_restore(Keeper *k, int memfd, char reason[STATE_REASON_SIZE]) {
        Reader reader = { .k = k, .reason = reason };
        MemfdMapping mapping;
        StateHeader header;
        int r = memfd_map_sealed(memfd, STATE_MAX, &mapping);

        *reason = '\0';
        if (r < 0)
                return wrong(&reader, "it is no sealed memory");
        memcpy(&header, mapping.data, MIN(sizeof(header), mapping.size));
        if (mapping.size < sizeof(header) || memcmp(header.magic, STATE_MAGIC, sizeof(header.magic)) != 0)
                r = wrong(&reader, "it is no keeper's state");
        else if (header.oldest > STATE_VERSION || header.version + 1 < STATE_VERSION)
                r = wrong(&reader, "it is of another version");
        else
                r = read_records(&reader, mapping.data + sizeof(header), mapping.size - sizeof(header));
        memfd_unmap(&mapping);
        return r;
}
