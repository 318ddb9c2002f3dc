/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, the sockets of a runner: `sockets', `socket_variable' and `fd_store', from texts to values. An address is kept as
 * it was written, since each instance of a template has its own; that it will be one is tried here with the first and the
 * last of their numbers.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "common/parse.h"

#define TIMEOUT_MAX_US (366 * 24 * 3600 * USEC_PER_SEC)

enum { BACKLOG_DEFAULT = 4096, MODE_DEFAULT = 0666, KEY_SIZE = 64 };

/* One socket that is being read: what is said about its keys is said with its number. */
typedef struct Reading {
        ConfigLoader *loader;
        unsigned number;
        char key[KEY_SIZE];
} Reading;

static const char *key_of(Reading *reading, const char *key) {
        (void) snprintf(reading->key, sizeof(reading->key), "sockets.%u%s%s", reading->number, key ? "." : "",
                        key ? key : "");
        return reading->key;
}

static void unexpected(Reading *reading, const char *key, const char *text) {
        config_value_unexpected(reading->loader, key_of(reading, key), text);
}

static void read_boolean(Reading *reading, const char *key, const char *text, bool *value) {
        if (text && !config_value_boolean(text, value))
                unexpected(reading, key, text);
}

/* is_fd_name() - what can be in LISTEN_FDNAMES. */
static bool is_fd_name(const char *text) {
        size_t length = strlen(text);

        for (size_t i = 0; i < length; i++)
                if (text[i] < ' ' || text[i] > '~' || text[i] == ':')
                        return false;
        return length > 0 && length <= CONFIG_FD_NAME_MAX;
}

/* ------------------------------------------------------------------------------------------------------- the address */

/* check_address() - of the instance @number, from 1. */
static bool check_address(Reading *reading, const RunnerConfig *config, const ConfigSocket *socket, const char *key,
                          uint32_t number) {
        char instance[CONFIG_NAME_MAX + 1];
        _cleanup_free_ char *text = NULL;
        SocketAddress address;
        int r;

        (void) runner_config_instance_name(config, number, instance);
        text = runner_config_expand(config, socket->address, instance, config->is_template ? number : 0);
        if (!text) {
                reading->loader->no_memory = true;
                return false;
        }
        r = socket_address_parse(socket->type, text, &address);
        if (r == -ENAMETOOLONG)
                config_fail(reading->loader, key_of(reading, key), "expected at most %zu characters, not %zu",
                            sizeof(((struct sockaddr_un *) NULL)->sun_path) - 1, strlen(text));
        else if (r < 0)
                unexpected(reading, key, text);
        return r == 0;
}

/* is_own() - whether no two instances of a template would have it. */
static bool is_own(const RunnerConfig *config, const ConfigSocket *socket) {
        return !config->is_template || config->instances <= 1 || strstr(socket->address, "%i") ||
               strstr(socket->address, "%n");
}

static void read_address(Reading *reading, const RunnerConfig *config, const RawSocket *raw, ConfigSocket *socket) {
        const struct {
                const char *key, *text;
                SocketType type;
        } all[] = { { "tcp", raw->tcp, SOCKET_TCP },
                    { "udp", raw->udp, SOCKET_UDP },
                    { "unix", raw->unix_address, SOCKET_UNIX_STREAM } };
        const char *key = NULL;

        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                if (!all[i].text)
                        continue;
                if (key) {
                        config_fail(reading->loader, key_of(reading, all[i].key), "goes with no '%s': one of them",
                                    key);
                        return;
                }
                key = all[i].key;
                socket->address = all[i].text;
                socket->type = all[i].type;
        }
        if (!key) {
                config_fail(reading->loader, key_of(reading, NULL), "expected one of tcp, udp and unix");
                return;
        }
        if (!check_address(reading, config, socket, key, 1) ||
            (config->is_template && config->instances > 1 &&
             !check_address(reading, config, socket, key, config->instances)))
                return;
        if (!is_own(config, socket) && !socket->reuse_port)
                config_fail(reading->loader, key_of(reading, key),
                            "it would be the same for all instances: put %%i into it, or say reuse_port");
}

/* read_type() - after the address, which says the family. */
static void read_type(Reading *reading, const RawSocket *raw, ConfigSocket *socket) {
        static const struct {
                const char *name;
                SocketType type;
        } types[] = { { "stream", SOCKET_UNIX_STREAM },
                      { "dgram", SOCKET_UNIX_DGRAM },
                      { "seqpacket", SOCKET_UNIX_SEQPACKET } };

        if (!raw->type)
                return;
        if (!raw->unix_address) {
                config_fail(reading->loader, key_of(reading, "type"), "goes only with 'unix'");
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(types); i++)
                if (strcmp(types[i].name, raw->type) == 0) {
                        socket->type = types[i].type;
                        return;
                }
        unexpected(reading, "type", raw->type);
}

/* ---------------------------------------------------------------------------------------------------------- one socket */

/* read_owner() - who is gone since then is no error for a supervisor that follows another. */
static void read_owner(Reading *reading, const RawSocket *raw, ConfigSocket *socket) {
        bool again = reading->loader->flags & CONFIG_LOAD_AGAIN;

        if (raw->user && !config_user_number(raw->user, &socket->uid) && !again)
                config_fail(reading->loader, key_of(reading, "user"), "there is no user %s", raw->user);
        if (raw->group && !config_user_group(raw->group, &socket->gid) && !again)
                config_fail(reading->loader, key_of(reading, "group"), "there is no group %s", raw->group);
}

/* check_family() - keys that mean nothing for sockets of the other kind. */
static void check_family(Reading *reading, const RawSocket *raw, const ConfigSocket *socket) {
        bool is_path = raw->unix_address && *raw->unix_address == '/';
        const struct {
                const char *key, *text;
                bool good;
                const char *with;
        } all[] = { { "mode", raw->mode, is_path, "a path" },
                    { "user", raw->user, is_path, "a path" },
                    { "group", raw->group, is_path, "a path" },
                    { "reuse_port", raw->reuse_port, !raw->unix_address, "'tcp' and 'udp'" },
                    { "ipv6_only", raw->ipv6_only, !raw->unix_address, "'tcp' and 'udp'" },
                    { "free_bind", raw->free_bind, !raw->unix_address, "'tcp' and 'udp'" },
                    { "backlog", raw->backlog, socket->type != SOCKET_UDP && socket->type != SOCKET_UNIX_DGRAM,
                      "what is listened on" } };

        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                if (all[i].text && !all[i].good)
                        config_fail(reading->loader, key_of(reading, all[i].key), "goes only with %s", all[i].with);
}

static void read_socket(Reading *reading, const RunnerConfig *config, const RawSocket *raw, ConfigSocket *socket) {
        uint64_t backlog = BACKLOG_DEFAULT;
        int64_t mode = MODE_DEFAULT;

        *socket = (ConfigSocket){ .name = config->name, .address = "", .uid = (uid_t) -1, .gid = (gid_t) -1 };
        read_boolean(reading, "reuse_port", raw->reuse_port, &socket->reuse_port);
        read_boolean(reading, "ipv6_only", raw->ipv6_only, &socket->ipv6_only);
        read_boolean(reading, "free_bind", raw->free_bind, &socket->free_bind);
        if (raw->name && is_fd_name(raw->name))
                socket->name = raw->name;
        else if (raw->name)
                unexpected(reading, "name", raw->name);
        if (raw->backlog && (parse_u64(raw->backlog, 65535, &backlog) < 0 || backlog == 0))
                unexpected(reading, "backlog", raw->backlog);
        if (raw->mode && (!config_value_octal(raw->mode, &mode) || mode > 0777))
                unexpected(reading, "mode", raw->mode);
        socket->backlog = (uint32_t) backlog;
        socket->mode = (uint16_t) mode;
        read_owner(reading, raw, socket);
        read_address(reading, config, raw, socket);
        read_type(reading, raw, socket);
        check_family(reading, raw, socket);
}

static void apply_sockets(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        ConfigSocket *sockets;

        if (raw->n_sockets == 0)
                return;
        if (raw->n_sockets > CONFIG_SOCKETS_MAX) {
                config_fail(loader, "sockets", "expected at most %d of them, not %u", CONFIG_SOCKETS_MAX,
                            raw->n_sockets);
                return;
        }
        sockets = config_arena_new(&loader->arena, raw->n_sockets * sizeof(*sockets));
        if (!sockets) {
                loader->no_memory = true;
                return;
        }
        for (unsigned i = 0; i < raw->n_sockets; i++) {
                Reading reading = { .loader = loader, .number = i + 1 };

                read_socket(&reading, &draft->config, &raw->sockets[i], &sockets[i]);
        }
        draft->config.sockets = sockets;
        draft->config.n_sockets = (uint8_t) raw->n_sockets;
}

/* ----------------------------------------------------------------------------------------------------------- the rest */

static bool is_variable_name(const char *text) {
        size_t length = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");

        return length > 0 && text[length] == '\0' && (*text < '0' || *text > '9') &&
               strncmp(text, "LISTEN_", strlen("LISTEN_")) != 0;
}

static void apply_variable(ConfigLoader *loader, ConfigDraft *draft, const RawSocketVariable *raw) {
        if (!raw)
                return;
        draft->socket_variable = (ConfigSocketVariable){ .name = raw->name, .format = "%f", .separator = "" };
        if (!raw->name && !config_values_has(loader, "socket_variable.name"))
                config_fail(loader, "socket_variable", "'name' is missing: expected the name of a variable");
        else if (raw->name && !is_variable_name(raw->name))
                config_value_unexpected(loader, "socket_variable.name", raw->name);
        if (raw->format && !strstr(raw->format, "%f"))
                config_value_unexpected(loader, "socket_variable.format", raw->format);
        else if (raw->format)
                draft->socket_variable.format = raw->format;
        if (raw->separator)
                draft->socket_variable.separator = raw->separator;
        draft->config.socket_variable = &draft->socket_variable;
}

static void apply_fd_store(ConfigLoader *loader, RunnerConfig *config, const RawFdStore *raw) {
        uint64_t max = config->fd_store_max;

        if (raw && raw->max && parse_u64(raw->max, CONFIG_FD_STORE_MAX, &max) < 0)
                config_value_unexpected(loader, "fd_store.max", raw->max);
        config->fd_store_max = (uint16_t) max;
        if (raw && raw->timeout &&
            (parse_duration(raw->timeout, &config->fd_store_timeout_us) < 0 ||
             config->fd_store_timeout_us > TIMEOUT_MAX_US))
                config_value_unexpected(loader, "fd_store.timeout", raw->timeout);
}

void config_sockets_apply(ConfigLoader *loader, ConfigDraft *draft, const RawRunner *raw) {
        apply_sockets(loader, draft, raw);
        apply_variable(loader, draft, raw->socket_variable);
        apply_fd_store(loader, &draft->config, raw->fd_store);
}

void config_sockets_finish(ConfigLoader *loader, const ConfigDraft *draft) {
        const RunnerConfig *config = &draft->config;

        if (config->n_sockets > 0 && config->ready == CONFIG_READY_FD)
                config_fail(loader, "sockets", "go with no 'ready: fd': both begin at descriptor 3");
        if (config->n_sockets > 0 && (config->oneshot || config->schedule))
                config_fail(loader, "sockets", "go with neither oneshot nor a schedule");
        if (config->socket_variable && config->n_sockets == 0)
                config_fail(loader, "socket_variable", "goes only with 'sockets'");
        if (config_values_has(loader, "fd_store") && config->fd_store_max > 0 && config->ready != CONFIG_READY_NOTIFY)
                config_fail(loader, "fd_store", "goes only with 'ready: notify': it is filled by FDSTORE=1");
}
