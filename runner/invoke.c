/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Call of a C function with arguments that came as values. Everything is checked and allocated before the function runs,
 * so that it either runs with exactly the arguments of its signature or not at all; what can fail afterwards is only the
 * string it returns.
 *
 * An Invocation holds libffi's view of the call: a slot of the parameter's own C type per argument, and pointers to the
 * slots and to their types. The buffers out are allocated inside the message of results and lent to the function, so that
 * nothing is copied after it. Small integer results come back from libffi widened to ffi_arg and are narrowed here.
 *
 * Nothing protects us from the function: that the caller's signature is not the real one shows, if at all, as a crash of
 * this process. That is what the process is for.
 */

#include "runner/invoke.h"

#include <assert.h>
#include <errno.h>
#include <ffi.h>
#include <stdio.h>
#include <string.h>

#include "common/macro.h"
#include "common/parse.h"

typedef union Slot {
        uint8_t u8;
        uint16_t u16;
        uint32_t u32;
        uint64_t u64;
        float f;
        double d;
        const void *p;
} Slot;

typedef union ReturnSlot {
        ffi_arg word;
        uint64_t u64;
        float f;
        double d;
        const char *s;
} ReturnSlot;

typedef struct Invocation {
        const Signature *signature;
        Slot slots[SIGNATURE_PARAMETERS_MAX];
        ffi_type *types[SIGNATURE_PARAMETERS_MAX];
        void *pointers[SIGNATURE_PARAMETERS_MAX];
        Baton__Values *results; /* the function's first, unless it is void */
} Invocation;

static ffi_type *const ffi_types[] = {
        [VALUE_NULL] = &ffi_type_void,      [VALUE_I8] = &ffi_type_sint8,    [VALUE_I16] = &ffi_type_sint16,
        [VALUE_I32] = &ffi_type_sint32,     [VALUE_I64] = &ffi_type_sint64,  [VALUE_U8] = &ffi_type_uint8,
        [VALUE_U16] = &ffi_type_uint16,     [VALUE_U32] = &ffi_type_uint32,  [VALUE_U64] = &ffi_type_uint64,
        [VALUE_F32] = &ffi_type_float,      [VALUE_F64] = &ffi_type_double,  [VALUE_STRING] = &ffi_type_pointer,
        [VALUE_BUFFER] = &ffi_type_pointer, [VALUE_OUT] = &ffi_type_pointer,
};
static_assert(ARRAY_SIZE(ffi_types) == _VALUE_N, "every type of value has a type of libffi's");

static int check_arguments(const Signature *signature, const Baton__Values *arguments, char *error) {
        size_t wanted = signature->n_parameters, given = arguments->n_values;

        for (size_t i = 0; i < MIN(wanted, given); i++) {
                ValueType type = value_type(arguments->values[i]);

                if (type == signature->parameters[i])
                        continue;
                (void) snprintf(error, VALUES_ERROR_MAX, "argument %zu of %s: expected %s, given %s", i + 1,
                                signature->name, value_type_name(signature->parameters[i]), value_type_name(type));
                return -EINVAL;
        }
        if (given < wanted)
                (void) snprintf(error, VALUES_ERROR_MAX, "argument %zu of %s (%s) is missing: expected %zu, given %zu",
                                given + 1, signature->name, value_type_name(signature->parameters[given]), wanted,
                                given);
        if (given > wanted)
                (void) snprintf(error, VALUES_ERROR_MAX, "argument %zu of %s is one too many: expected %zu, given %zu",
                                wanted + 1, signature->name, wanted, given);
        return given == wanted ? 0 : -EINVAL;
}

static int check_outs(const Baton__Values *arguments, uint64_t max_out, char *error) {
        uint64_t left = max_out;

        for (size_t i = 0; i < arguments->n_values; i++) {
                const Baton__Value *value = arguments->values[i];

                if (value_type(value) != VALUE_OUT)
                        continue;
                if (value->u > left) {
                        (void) snprintf(error, VALUES_ERROR_MAX,
                                        "argument %zu: out of %llu bytes, more than the %llu that are left of %llu",
                                        i + 1, (unsigned long long) value->u, (unsigned long long) left,
                                        (unsigned long long) max_out);
                        return -EMSGSIZE;
                }
                left -= value->u;
        }
        return 0;
}

/* set_integer() - as memory of the parameter's own width, which libffi reads. */
static void set_integer(Slot *slot, uint32_t width, uint64_t bits) {
        switch (width) {
        case 8:
                slot->u8 = (uint8_t) bits;
                break;
        case 16:
                slot->u16 = (uint16_t) bits;
                break;
        case 32:
                slot->u32 = (uint32_t) bits;
                break;
        default:
                slot->u64 = bits;
        }
}

/* add_out() - @size zeroed bytes among the results. An empty one is a valid pointer, too. */
static int add_out(Invocation *invocation, uint64_t size, const void **ret_pointer) {
        Baton__Value *value;
        int r = values_add(invocation->results, VALUE_BUFFER, &value);

        if (r < 0)
                return r;
        value->b.data = calloc(1, MAX(size, (uint64_t) 1));
        if (!value->b.data)
                return -ENOMEM;
        value->b.len = size;
        *ret_pointer = value->b.data;
        return 0;
}

static int set_slot(Invocation *invocation, Slot *slot, const Baton__Value *value) {
        switch (value->v_case) {
        case BATON__VALUE__V_I:
                set_integer(slot, value->width, (uint64_t) value->i);
                return 0;
        case BATON__VALUE__V_U:
                if (value_type(value) == VALUE_OUT)
                        return add_out(invocation, value->u, &slot->p);
                set_integer(slot, value->width, value->u);
                return 0;
        case BATON__VALUE__V_F:
                slot->f = value->f;
                return 0;
        case BATON__VALUE__V_D:
                slot->d = value->d;
                return 0;
        case BATON__VALUE__V_S:
                slot->p = value->s;
                return 0;
        default:
                /* protobuf-c leaves the data of empty bytes NULL, which functions may read as "not given". */
                slot->p = value->b.data ? (const void *) value->b.data : "";
                return 0;
        }
}

/* prepare() - slots, types and results of a call whose arguments have been checked. */
static int prepare(Invocation *invocation, const Baton__Values *arguments) {
        const Signature *signature = invocation->signature;
        Baton__Value *result;
        int r = 0;

        invocation->results = values_new();
        if (!invocation->results)
                return -ENOMEM;
        if (signature->result != VALUE_NULL)
                r = values_add(invocation->results, signature->result, &result);
        for (size_t i = 0; r == 0 && i < signature->n_parameters; i++) {
                r = set_slot(invocation, &invocation->slots[i], arguments->values[i]);
                invocation->types[i] = ffi_types[signature->parameters[i]];
                invocation->pointers[i] = &invocation->slots[i];
        }
        return r;
}

static int take_string(const Signature *signature, const char *text, uint64_t max, Baton__Value *value, char *error) {
        size_t length;

        if (!text) {
                value_set_type(value, VALUE_NULL);
                return 0;
        }
        length = strnlen(text, max + 1);
        if (length > max) {
                (void) snprintf(error, VALUES_ERROR_MAX, "%s returned a string of more than %llu bytes",
                                signature->name, (unsigned long long) max);
                return -EMSGSIZE;
        }
        if (!utf8_is_valid(text, length)) {
                (void) snprintf(error, VALUES_ERROR_MAX, "%s returned a string that is not UTF-8", signature->name);
                return -EPROTO;
        }
        value->s = strdup(text);
        if (!value->s)
                (void) snprintf(error, VALUES_ERROR_MAX, "no memory for the string that %s returned", signature->name);
        return value->s ? 0 : -ENOMEM;
}

static int take_result(const Signature *signature, const ReturnSlot *slot, uint64_t max, Baton__Value *value,
                       char *error) {
        uint64_t bits = ffi_types[signature->result]->size > sizeof(ffi_arg) ? slot->u64 : slot->word;

        switch (value->v_case) {
        case BATON__VALUE__V_I:
                value->i = (int64_t) (bits << (64 - value->width)) >> (64 - value->width);
                return 0;
        case BATON__VALUE__V_U:
                value->u = bits & value_type_max(signature->result);
                return 0;
        case BATON__VALUE__V_F:
                value->f = slot->f;
                return 0;
        case BATON__VALUE__V_D:
                value->d = slot->d;
                return 0;
        default:
                return take_string(signature, slot->s, max, value, error);
        }
}

int invoke(InvokeFn function, const Signature *signature, const Baton__Values *arguments, uint64_t max_out,
           Baton__Values **ret_results, char *error) {
        Invocation invocation = { .signature = signature };
        _cleanup_(values_freep) Baton__Values *results = NULL;
        ReturnSlot slot = {};
        ffi_cif cif;
        int r = check_arguments(signature, arguments, error);

        if (r == 0)
                r = check_outs(arguments, max_out, error);
        if (r < 0)
                return r;
        r = prepare(&invocation, arguments);
        results = invocation.results;
        if (r < 0) {
                (void) snprintf(error, VALUES_ERROR_MAX, "no memory for the arguments of %s", signature->name);
                return r;
        }
        if (ffi_prep_cif(&cif, FFI_DEFAULT_ABI, (unsigned) signature->n_parameters, ffi_types[signature->result],
                         invocation.types) != FFI_OK) {
                (void) snprintf(error, VALUES_ERROR_MAX, "libffi cannot call %s on this machine", signature->name);
                return -EINVAL;
        }

        ffi_call(&cif, function, &slot, invocation.pointers);

        if (signature->result != VALUE_NULL)
                r = take_result(signature, &slot, max_out, results->values[0], error);
        if (r == 0)
                *ret_results = TAKE_PTR(results);
        return r;
}
