/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Config, one file as YAML. libcyaml fills structures, but stops at the first fault, says it without a line, and knows one
 * form for each thing. So the document is first read by libyaml, below libcyaml, and walked along the same schema: what
 * does not fit is reported with its line and left out; each key's line is kept for what is found wrong with its value
 * later; and what people may write in more than one way is brought into the one form that the schema has:
 *
 *     after: db                 is     after: [db]
 *     env: { A: 1 }             is     env: ["A=1"]
 *     runners: { web: {} }      is     runners: [{ name: web }]
 *
 * The result is written out as YAML again, all in double quotes, and that is what libcyaml loads.
 *
 * Depth is bounded by the schema, which has no cycles, work by the file's size: aliases, with which a small file can mean
 * a large one, are refused.
 */

#include "supervisor/config-internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

#include "supervisor/near.h"

/* Where a key is. */
struct ConfigPosition {
        UT_hash_handle hh;
        uint32_t line;
        char path[];
};

typedef struct Walk {
        ConfigDocument *document;
        ConfigErrors *errors;
        yaml_document_t *yaml;
        bool *seen; /* nodes */
        char *out;  /* what libcyaml gets */
        size_t used, size;
        char path[CONFIG_PATH_SIZE];
        size_t base; /* of the path: up to the end of a name, which may have dots; 0: none */
        bool no_memory;
} Walk;

/* ------------------------------------------------------------------------------------------------------------- output */

static void put_bytes(Walk *walk, const char *bytes, size_t n) {
        if (n == 0)
                return;
        if (walk->used + n > walk->size) {
                size_t size = MAX(walk->size * 2, walk->used + n + 4096);
                char *out = realloc(walk->out, size);

                if (!out) {
                        walk->no_memory = true;
                        return;
                }
                walk->out = out;
                walk->size = size;
        }
        memcpy(walk->out + walk->used, bytes, n);
        walk->used += n;
}

static void put(Walk *walk, const char *text) {
        put_bytes(walk, text, strlen(text));
}

/* put_escaped() - part of a text in double quotes. */
static void put_escaped(Walk *walk, const char *bytes, size_t n) {
        for (size_t i = 0; i < n; i++) {
                char escape[8];

                if ((unsigned char) bytes[i] >= 0x20 && !strchr("\"\\\x7f", bytes[i])) {
                        put_bytes(walk, bytes + i, 1);
                } else {
                        (void) snprintf(escape, sizeof(escape), "\\x%02X", (unsigned char) bytes[i]);
                        put(walk, escape);
                }
        }
}

static void put_quoted(Walk *walk, const char *bytes, size_t n) {
        put(walk, "\"");
        put_escaped(walk, bytes, n);
        put(walk, "\"");
}

/* ---------------------------------------------------------------------------------------------------------- positions */

/* path_push() - appends @key to the path, and returns how long it was before. */
static size_t path_push(Walk *walk, const char *key) {
        size_t before = strlen(walk->path);

        (void) snprintf(walk->path + before, sizeof(walk->path) - before, "%s%s", before > 0 ? "." : "", key);
        return before;
}

static void path_pop(Walk *walk, size_t before) {
        walk->path[before] = '\0';
}

/* remember() - the path's line. The line of an earlier one of that path: it is there twice; else 0. */
static uint32_t remember(Walk *walk, uint32_t line) {
        size_t length = strlen(walk->path);
        ConfigPosition *position, *before;

        HASH_FIND(hh, walk->document->positions, walk->path, length, before);
        if (before)
                return before->line;
        position = calloc(1, sizeof(*position) + length + 1);
        if (!position) {
                walk->no_memory = true;
                return 0;
        }
        memcpy(position->path, walk->path, length);
        position->line = line;
        HASH_ADD(hh, walk->document->positions, path, length, position);
        if (!position->hh.tbl) {
                walk->no_memory = true;
                free(position);
        }
        return 0;
}

uint32_t config_document_line(const ConfigDocument *document, const char *path) {
        ConfigPosition *found;

        HASH_FIND(hh, document->positions, path, strlen(path), found);
        return found ? found->line : 0;
}

static uint32_t line_of(const yaml_node_t *node) {
        return (uint32_t) node->start_mark.line + 1;
}

/* ---------------------------------------------------------------------------------------------------------- the walk */

/* expectation() - what belongs to the path that is looked at. */
static const char *expectation(const Walk *walk) {
        bool runner = strncmp(walk->path, "runners.", strlen("runners.")) == 0;
        const char *key = walk->path + walk->base;

        if (strcmp(walk->path, "groups") == 0)
                return config_expected("groups.");
        if (walk->base > 0 && *key == '\0')
                return runner ? "a mapping of a runner's keys" : "a mapping of a group's keys";
        if (walk->base > 0)
                return config_expected(key + 1);
        if (strncmp(key, "supervisor.", 11) == 0 || strncmp(key, "defaults.", 9) == 0)
                return config_expected(strchr(key, '.') + 1);
        return config_expected(key);
}

static const char *what_it_is(const yaml_node_t *node) {
        return node->type == YAML_SEQUENCE_NODE ? "a list" : node->type == YAML_MAPPING_NODE ? "a mapping" : "a text";
}

static bool is_nothing(const yaml_node_t *node) {
        const char *text = (const char *) node->data.scalar.value;

        return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
               (*text == '\0' || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

/* refuse() - @node, of another kind than is expected. Returns false. */
static bool refuse(Walk *walk, const yaml_node_t *node, uint32_t line) {
        config_errors_add(walk->errors, walk->document->file, line, walk->path, "expected %s, not %s",
                          expectation(walk), is_nothing(node) ? "nothing" : what_it_is(node));
        return false;
}

/* get() - the node; NULL: it is an alias, which is reported. */
static yaml_node_t *get(Walk *walk, int id, uint32_t line) {
        if (walk->seen[id - 1]) {
                config_errors_add(walk->errors, walk->document->file, line, *walk->path ? walk->path : NULL,
                                  "aliases (*name) cannot be used: what runners have in common goes into 'defaults'");
                return NULL;
        }
        walk->seen[id - 1] = true;
        return yaml_document_get_node(walk->yaml, id);
}

/* text_is_usable() - as a string of C. */
static bool text_is_usable(Walk *walk, const yaml_node_t *node) {
        if (!memchr(node->data.scalar.value, '\0', node->data.scalar.length))
                return true;
        config_errors_add(walk->errors, walk->document->file, line_of(node), *walk->path ? walk->path : NULL,
                          "expected a text without a byte 0");
        return false;
}

static bool walk_text(Walk *walk, const yaml_node_t *node, uint32_t line) {
        if (node->type != YAML_SCALAR_NODE || is_nothing(node))
                return refuse(walk, node, line);
        if (!text_is_usable(walk, node))
                return false;
        put_quoted(walk, (const char *) node->data.scalar.value, node->data.scalar.length);
        return true;
}

/* walk_item() - of a list of texts. */
static bool walk_item(Walk *walk, int id) {
        const yaml_node_t *raw = yaml_document_get_node(walk->yaml, id), *node = get(walk, id, line_of(raw));

        if (!node)
                return false;
        if (node->type == YAML_SCALAR_NODE && node->data.scalar.length == 0 && !is_nothing(node)) {
                put(walk, "\"\""); /* an empty word, in quotes */
                return true;
        }
        return walk_text(walk, node, line_of(node));
}

/* walk_variable() - of a mapping, as NAME=value. */
static bool walk_variable(Walk *walk, const yaml_node_pair_t *pair) {
        const yaml_node_t *raw = yaml_document_get_node(walk->yaml, pair->key),
                          *key = get(walk, pair->key, line_of(raw));
        const yaml_node_t *value = key ? get(walk, pair->value, line_of(key)) : NULL;

        if (!value)
                return false;
        if (key->type != YAML_SCALAR_NODE || value->type != YAML_SCALAR_NODE)
                return refuse(walk, key->type != YAML_SCALAR_NODE ? key : value, line_of(key));
        if (!text_is_usable(walk, key) || !text_is_usable(walk, value))
                return false;
        put(walk, "\"");
        put_escaped(walk, (const char *) key->data.scalar.value, key->data.scalar.length);
        put(walk, "=");
        put_escaped(walk, (const char *) value->data.scalar.value, value->data.scalar.length);
        put(walk, "\"");
        return true;
}

/* walk_texts() - a list of them, or one alone; of variables a mapping, too. */
static bool walk_texts(Walk *walk, const cyaml_schema_field_t *field, const yaml_node_t *node, uint32_t line) {
        bool variables = strcmp(field->key, "env") == 0, good = true;

        if (node->type == YAML_SEQUENCE_NODE && field->value.sequence.min > 0 &&
            node->data.sequence.items.start == node->data.sequence.items.top) {
                config_errors_add(walk->errors, walk->document->file, line, walk->path,
                                  "expected %s, not an empty list", expectation(walk));
                return false;
        }
        put(walk, "[");
        if (node->type == YAML_SEQUENCE_NODE) {
                for (int *id = node->data.sequence.items.start; id < node->data.sequence.items.top; id++) {
                        good = walk_item(walk, *id) && good;
                        put(walk, ", ");
                }
        } else if (node->type == YAML_MAPPING_NODE && variables) {
                for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
                     pair++) {
                        good = walk_variable(walk, pair) && good;
                        put(walk, ", ");
                }
        } else {
                good = walk_text(walk, node, line);
        }
        put(walk, "]");
        return good;
}

static bool walk_value(Walk *walk, const cyaml_schema_field_t *field, const yaml_node_t *node, uint32_t line);

static const cyaml_schema_field_t *find_field(const cyaml_schema_field_t *fields, const char *key) {
        for (; fields->key; fields++)
                if (strcmp(fields->key, key) == 0)
                        return fields;
        return NULL;
}

static void report_unknown(Walk *walk, const cyaml_schema_field_t *fields, const char *key, uint32_t line) {
        const char *ours = config_elsewhere(key);
        char text[NEAR_TEXT_SIZE];
        Near near = { .wanted = key };

        if (ours && find_field(fields, ours))
                near = (Near){ .wanted = key, .names = { ours }, .n = 1 };
        else
                for (; fields->key; fields++)
                        near_offer(&near, fields->key);
        if (strcmp(key, "<<") == 0)
                config_errors_add(walk->errors, walk->document->file, line, walk->path,
                                  "merges cannot be used: what runners have in common goes into 'defaults'");
        else
                config_errors_add(walk->errors, walk->document->file, line, walk->path, "there is no such key%s",
                                  near_text(&near, text));
}

/* begin_key() - the key of @pair, which is new and usable, and the path with it; else NULL. */
static const char *begin_key(Walk *walk, const yaml_node_pair_t *pair, uint32_t *ret_line, size_t *ret_before) {
        const yaml_node_t *raw = yaml_document_get_node(walk->yaml, pair->key),
                          *key = get(walk, pair->key, line_of(raw));
        const char *text;
        uint32_t twice;

        if (!key)
                return NULL;
        *ret_line = line_of(key);
        if (key->type != YAML_SCALAR_NODE) {
                config_errors_add(walk->errors, walk->document->file, *ret_line, *walk->path ? walk->path : NULL,
                                  "expected a key, not %s", what_it_is(key));
                return NULL;
        }
        if (!text_is_usable(walk, key))
                return NULL;
        text = (const char *) key->data.scalar.value;
        *ret_before = path_push(walk, text);
        twice = remember(walk, *ret_line);
        if (twice > 0) {
                config_errors_add(walk->errors, walk->document->file, *ret_line, walk->path,
                                  "this key is there twice, first on line %u", twice);
                path_pop(walk, *ret_before);
                return NULL;
        }
        return text;
}

static void walk_pair(Walk *walk, const cyaml_schema_field_t *fields, const yaml_node_pair_t *pair, bool named) {
        const cyaml_schema_field_t *field;
        size_t before, used = walk->used;
        const yaml_node_t *value;
        const char *key;
        uint32_t line;

        key = begin_key(walk, pair, &line, &before);
        if (!key)
                return;
        field = find_field(fields, key);
        value = get(walk, pair->value, line);
        if (!field || (named && strcmp(key, "name") == 0)) {
                report_unknown(walk, fields + named, key, line);
        } else if (value) {
                put_quoted(walk, key, strlen(key));
                put(walk, ": ");
                if (walk_value(walk, field, value, line))
                        put(walk, ", ");
                else
                        walk->used = used;
        }
        path_pop(walk, before);
}

/* walk_mapping() - @name, if not NULL, becomes the first key. */
static bool walk_mapping(Walk *walk, const cyaml_schema_field_t *fields, const yaml_node_t *node, const char *name,
                         uint32_t line) {
        if (node->type != YAML_MAPPING_NODE && !is_nothing(node))
                return refuse(walk, node, line);
        put(walk, "{");
        if (name) {
                put(walk, "\"name\": ");
                put_quoted(walk, name, strlen(name));
                put(walk, ", ");
        }
        if (node->type == YAML_MAPPING_NODE)
                for (yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
                     pair++)
                        walk_pair(walk, fields, pair, name);
        put(walk, "}");
        return true;
}

/* walk_named() - a mapping from names to mappings, as a list of mappings with names. */
static bool walk_named(Walk *walk, const cyaml_schema_field_t *fields, const yaml_node_t *node, uint32_t line) {
        if (node->type != YAML_MAPPING_NODE && !is_nothing(node))
                return refuse(walk, node, line);
        put(walk, "[");
        for (yaml_node_pair_t *pair = node->type == YAML_MAPPING_NODE ? node->data.mapping.pairs.start : NULL;
             pair && pair < node->data.mapping.pairs.top; pair++) {
                size_t before, used = walk->used;
                const yaml_node_t *value;
                const char *name;

                name = begin_key(walk, pair, &line, &before);
                if (!name)
                        continue;
                walk->base = strlen(walk->path);
                value = get(walk, pair->value, line);
                if (value && walk_mapping(walk, fields, value, name, line))
                        put(walk, ",\n");
                else
                        walk->used = used;
                walk->base = 0;
                path_pop(walk, before);
        }
        put(walk, "]");
        return true;
}

/* walk_mappings() - a list of them, or one alone; each is the path's next item: "hooks.1". */
static bool walk_mappings(Walk *walk, const cyaml_schema_field_t *fields, const yaml_node_t *node, uint32_t line) {
        unsigned n = 0;
        char number[16];
        bool good = true;
        size_t before;

        if (node->type != YAML_SEQUENCE_NODE)
                return refuse(walk, node, line);
        put(walk, "[");
        for (int *id = node->data.sequence.items.start; id < node->data.sequence.items.top; id++) {
                const yaml_node_t *raw = yaml_document_get_node(walk->yaml, *id), *item = get(walk, *id, line_of(raw));

                (void) snprintf(number, sizeof(number), "%u", ++n);
                before = path_push(walk, number);
                (void) remember(walk, line_of(raw));
                good = item && walk_mapping(walk, fields, item, NULL, line_of(item)) && good;
                put(walk, ", ");
                path_pop(walk, before);
        }
        put(walk, "]");
        return good;
}

static bool walk_value(Walk *walk, const cyaml_schema_field_t *field, const yaml_node_t *node, uint32_t line) {
        const cyaml_schema_value_t *schema = &field->value, *entry = schema->sequence.entry;

        if (schema->type == CYAML_STRING)
                return walk_text(walk, node, line);
        if (schema->type == CYAML_MAPPING)
                return walk_mapping(walk, schema->mapping.fields, node, NULL, line);
        if (entry->type == CYAML_STRING)
                return walk_texts(walk, field, node, line);
        if (strcmp(entry->mapping.fields->key, "name") == 0)
                return walk_named(walk, entry->mapping.fields, node, line);
        return walk_mappings(walk, entry->mapping.fields, node, line);
}

/* ----------------------------------------------------------------------------------------------------------- the file */

static void *allocate(void *context, void *pointer, size_t size) {
        (void) context;
        if (size > 0)
                return realloc(pointer, size);
        free(pointer);
        return NULL;
}

static const cyaml_config_t cyaml_config = { .mem_fn = allocate, .flags = CYAML_CFG_NO_ALIAS };

/* fill() - by libcyaml. What it still refuses is our fault: the walk has seen all of it. */
static int fill(Walk *walk) {
        cyaml_err_t error;
        void *raw = NULL;

        if (walk->no_memory)
                return -ENOMEM;
        error = cyaml_load_data((const uint8_t *) walk->out, walk->used, &cyaml_config, &config_schema, &raw, NULL);
        if (error == CYAML_ERR_OOM)
                return -ENOMEM;
        if (error != CYAML_OK) {
                config_errors_add(walk->errors, walk->document->file, 0, NULL, "libcyaml: %s", cyaml_strerror(error));
                return 0;
        }
        walk->document->raw = raw;
        return 0;
}

static int walk_document(ConfigDocument *document, yaml_document_t *yaml, ConfigErrors *errors) {
        const yaml_node_t *root = yaml_document_get_root_node(yaml);
        Walk walk = { .document = document, .errors = errors, .yaml = yaml };
        int r = 0;

        if (!root || is_nothing(root)) {
                config_errors_add(errors, document->file, 0, NULL, "nothing is in it: expected runners");
                return 0;
        }
        walk.seen = calloc((size_t) (yaml->nodes.top - yaml->nodes.start), sizeof(*walk.seen));
        if (!walk.seen)
                return -ENOMEM;
        walk.seen[0] = true;
        if (root->type != YAML_MAPPING_NODE)
                config_errors_add(errors, document->file, line_of(root), NULL,
                                  "expected a mapping with supervisor, defaults, runners or groups, not %s",
                                  what_it_is(root));
        else if (walk_mapping(&walk, config_schema.mapping.fields, root, NULL, line_of(root)))
                r = fill(&walk);
        free(walk.seen);
        free(walk.out);
        return r;
}

static void report_parser(const yaml_parser_t *parser, const char *file, ConfigErrors *errors) {
        uint32_t line = (uint32_t) parser->problem_mark.line + 1;
        const char *problem = parser->problem ? parser->problem : "no YAML";

        if (parser->error == YAML_READER_ERROR)
                config_errors_add(errors, file, 0, NULL, "not YAML: byte %zu: %s", parser->problem_offset, problem);
        else
                config_errors_add(errors, file, line, NULL, "not YAML: column %zu: %s%s%s",
                                  parser->problem_mark.column + 1, parser->context ? parser->context : "",
                                  parser->context ? ": " : "", problem);
}

/* load_document() - as yaml_parser_load(): @yaml is empty at the end of the file. */
static int load_document(yaml_parser_t *parser, yaml_document_t *yaml, const char *file, ConfigErrors *errors,
                         bool *ret_good) {
        *ret_good = yaml_parser_load(parser, yaml);
        if (*ret_good)
                return 0;
        if (parser->error == YAML_MEMORY_ERROR)
                return -ENOMEM;
        report_parser(parser, file, errors);
        return 0;
}

/* no_more() - a second document would be ignored, so it is refused. */
static int no_more(yaml_parser_t *parser, const char *file, ConfigErrors *errors) {
        yaml_document_t yaml;
        const yaml_node_t *root;
        bool good;
        int r = load_document(parser, &yaml, file, errors, &good);

        if (r < 0 || !good)
                return r;
        root = yaml_document_get_root_node(&yaml);
        if (root)
                config_errors_add(errors, file, line_of(root), NULL,
                                  "expected one document in a file, not a second one");
        yaml_document_delete(&yaml);
        return 0;
}

int config_document_load(ConfigDocument *ret_document, const ConfigFile *file, ConfigErrors *errors) {
        ConfigDocument document = { .file = file->name };
        yaml_document_t yaml;
        yaml_parser_t parser;
        bool good;
        int r;

        if (!yaml_parser_initialize(&parser))
                return -ENOMEM;
        yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&parser, (const unsigned char *) file->text, file->size);
        r = load_document(&parser, &yaml, file->name, errors, &good);
        if (r == 0 && good) {
                r = walk_document(&document, &yaml, errors);
                if (r == 0 && yaml_document_get_root_node(&yaml))
                        r = no_more(&parser, file->name, errors);
                yaml_document_delete(&yaml);
        }
        yaml_parser_delete(&parser);
        if (r < 0) {
                config_document_deinit(&document);
                return r;
        }
        *ret_document = document;
        return 0;
}

void config_document_deinit(ConfigDocument *document) {
        ConfigPosition *position, *next;

        HASH_ITER (hh, document->positions, position, next) {
                HASH_DEL(document->positions, position);
                free(position);
        }
        (void) cyaml_free(&cyaml_config, &config_schema, document->raw, 0);
        *document = (ConfigDocument){ 0 };
}
