#include "libc.h"

#include <dlfcn.h>

#define NOT_THERE ((uintptr_t)1)

/* Relaxed: whoever looks it up finds the same, and nothing else goes with it. */
void *
pshm_libc_function(const char *name, atomic_uintptr_t *found)
{
    uintptr_t address = atomic_load_explicit(found, memory_order_relaxed);
    if (address == 0) {
        void *symbol = dlsym(RTLD_DEFAULT, name);
        address = symbol == NULL ? NOT_THERE : (uintptr_t)symbol;
        atomic_store_explicit(found, address, memory_order_relaxed);
    }
    return address == NOT_THERE ? NULL : (void *)address;
}
