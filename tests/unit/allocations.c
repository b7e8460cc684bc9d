/* Makes one chosen allocation of Python fail: the part of the preloaded
 * library of faults.h that knows an interpreter. The name of the call is
 * "allocate".
 *
 * Its caller is the library of pshm_fault_from, which the unwinder finds on
 * the stack with only the interpreter in between. Allocations of Python code
 * and of other libraries, which may not survive a failure, are not counted. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "faults.h"

#include <dlfcn.h>
#include <link.h>
#include <stddef.h>
#include <stdint.h>
#include <unwind.h>

/* CPython's PyMemAllocatorEx. */
struct allocator {
    void *context;
    void *(*malloc)(void *context, size_t size);
    void *(*calloc)(void *context, size_t count, size_t size);
    void *(*realloc)(void *context, void *memory, size_t size);
    void (*free)(void *context, void *memory);
};

enum { DOMAINS = 3 };

static struct allocator real[DOMAINS];

/* Functions that run Python code. */
static void *evaluator;

/* The address range of a loaded object. */
struct range {
    uintptr_t low, high;
};

static struct range interpreter, ours;

static bool
is_in(struct range range, uintptr_t address)
{
    return address >= range.low && address < range.high;
}

struct search {
    uintptr_t address;
    struct range *out;
};

static int
visit_object(struct dl_phdr_info *info, size_t size, void *context)
{
    struct search *search = context;
    struct range range = {UINTPTR_MAX, 0};
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        if (info->dlpi_phdr[i].p_type == PT_LOAD) {
            uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
            uintptr_t end = start + info->dlpi_phdr[i].p_memsz;
            range.low = start < range.low ? start : range.low;
            range.high = end > range.high ? end : range.high;
        }
    }
    if (is_in(range, search->address)) {
        *search->out = range;
    }
    return is_in(range, search->address);
}

static void
find_object(uintptr_t address, struct range *out)
{
    (void)dl_iterate_phdr(visit_object, &(struct search){address, out});
}

static _Unwind_Reason_Code
visit_frame(struct _Unwind_Context *frame, void *context)
{
    void **caller = (void **)context;
    void *address = (void *)_Unwind_GetIP(frame);
    bool passes = is_in(interpreter, (uintptr_t)address)
                  || is_in(ours, (uintptr_t)address);
    if (passes && (void *)_Unwind_GetRegionStart(frame) != evaluator) {
        return _URC_NO_REASON;
    }
    if (pshm_fault_is_seen(address)) {
        *caller = address;
    }
    return _URC_END_OF_STACK;
}

static bool
fails(void)
{
    void *caller = NULL;
    if (!pshm_fault_is_armed("allocate")) {
        return false;
    }
    (void)_Unwind_Backtrace(visit_frame, (void *)&caller);
    return caller != NULL && pshm_fault_meet("allocate", caller);
}

static void *
fail_malloc(void *context, size_t size)
{
    struct allocator *next = context;
    return fails() ? NULL : next->malloc(next->context, size);
}

static void *
fail_calloc(void *context, size_t count, size_t size)
{
    struct allocator *next = context;
    return fails() ? NULL : next->calloc(next->context, count, size);
}

static void *
fail_realloc(void *context, void *memory, size_t size)
{
    struct allocator *next = context;
    return fails() ? NULL : next->realloc(next->context, memory, size);
}

static void
pass_free(void *context, void *memory)
{
    struct allocator *next = context;
    next->free(next->context, memory);
}

int
pshm_fault_allocations(void)
{
    typedef void set_or_get(int domain, struct allocator *allocator);
    set_or_get *get = (set_or_get *)(uintptr_t)dlsym(RTLD_DEFAULT,
                                                     "PyMem_GetAllocator");
    set_or_get *set = (set_or_get *)(uintptr_t)dlsym(RTLD_DEFAULT,
                                                     "PyMem_SetAllocator");
    evaluator = dlsym(RTLD_DEFAULT, "_PyEval_EvalFrameDefault");
    if (get == NULL || set == NULL || evaluator == NULL) {
        return -1;
    }
    find_object((uintptr_t)evaluator, &interpreter);
    find_object((uintptr_t)real, &ours);
    for (int domain = 0; domain < DOMAINS; domain++) {
        get(domain, &real[domain]);
        set(domain, &(struct allocator){&real[domain], fail_malloc,
                                        fail_calloc, fail_realloc,
                                        pass_free});
    }
    return 0;
}
