#include "posix/sync/primitive.h"

#include <fcntl.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

#include "posix/object/attach.h"
#include "posix/object/fd.h"
#include "posix/sync/futex.h"
#include "posix/host.h"

#define VERSION 1

#ifdef __GLIBC__
#define LIBRARY 1
#else
#define LIBRARY 2                       /* musl */
#endif

/* Word by word, for another process may be making the cell at this moment. */
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize_thread))
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
__attribute__((no_sanitize_thread))
#endif
#endif
static bool
all_zero(const void *start, size_t length)
{
    const volatile uint32_t *words = start;
    for (size_t i = 0; i < length / sizeof(*words); i++) {
        if (words[i] != 0) {
            return false;
        }
    }
    return true;
}

static bool
is_blank(const struct pshm_primitive *primitive, size_t size)
{
    return all_zero(primitive->payload, sizeof(primitive->payload))
           && all_zero((const char *)primitive + sizeof(*primitive),
                       size - sizeof(*primitive));
}

/* The words of a guard that was just made. */
enum { GUARD_WORDS = sizeof(struct pshm_robust) / sizeof(unsigned) };

static int
model_guard(unsigned words[GUARD_WORDS])
{
    struct pshm_robust model;
    memset(&model, 0, sizeof(model));
    memset(words, 0, sizeof(model));
    int rc = pshm_robust_init(&model, 0);
    if (rc == 0) {
        memcpy(words, &model, sizeof(model));
        (void)pthread_mutex_destroy(&model.mutex);
    }
    return rc;
}

/* No magic yet: zeros, or with the guard, as far as its makers have come?  While
 * the cell is made all but the guard may be anything.  Returns 0 or -EBADMSG. */
static int
check_unmade(const struct pshm_primitive *primitive, size_t size,
             unsigned magic, const unsigned words[GUARD_WORDS])
{
    const atomic_uint *target
        = (const atomic_uint *)(const void *)&primitive->header.guard;
    bool making = magic == PSHM_PRIMITIVE_MAKING;
    if (!making
        && !(is_blank(primitive, size)
             && all_zero((const char *)&primitive->header
                             + offsetof(struct pshm_header, version),
                         offsetof(struct pshm_header, guard)
                             - offsetof(struct pshm_header, version)))) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < GUARD_WORDS; i++) {
        unsigned word = atomic_load(&target[i]);
        bool right = making ? words[i] == 0 || word == words[i]
                            : word == 0 || word == words[i];
        if (!right) {
            return -EBADMSG;
        }
    }
    return 0;
}

/* Returns 1: the magic has changed meanwhile; -ENOENT: there is no cell yet;
 * -EBADMSG; or -errno. */
static int
look_at_unmade(const struct pshm_primitive *primitive, size_t size,
               unsigned magic)
{
    unsigned words[GUARD_WORDS];
    int rc = model_guard(words);
    if (rc < 0) {
        return rc;
    }
    rc = check_unmade(primitive, size, magic, words);
    /* Acquire: who saw a maker's bytes sees that it was at it. */
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&primitive->header.magic, memory_order_relaxed)
        != magic) {
        return 1;
    }
    return rc < 0 ? rc : -ENOENT;
}

int
pshm_primitive_check(const struct pshm_primitive *primitive,
                     const struct pshm_primitive_params *spec,
                     enum pshm_primitive_kind *found)
{
    const struct pshm_header *header = &primitive->header;
    unsigned magic = atomic_load_explicit(&header->magic, memory_order_acquire);
    /* It goes from zero by way of MAKING to the one of a cell. */
    for (int i = 0; i < 2 && (magic == 0 || magic == PSHM_PRIMITIVE_MAKING);
         i++) {
        int rc = look_at_unmade(primitive, spec->size, magic);
        if (rc <= 0) {
            return rc;
        }
        magic = atomic_load_explicit(&header->magic, memory_order_acquire);
    }
    if (magic != PSHM_PRIMITIVE_MAGIC) {
        return -EBADMSG;
    }
    if (header->version != VERSION || header->library != LIBRARY
        || header->mutex_size != sizeof(pthread_mutex_t)
        || header->sem_size != sizeof(sem_t)) {
        return -ENOEXEC;
    }
    if (header->kind != spec->kind) {
        if (found != NULL) {
            *found = (enum pshm_primitive_kind)header->kind;
        }
        return -EPROTOTYPE;
    }
    /* Acquire: who sees a renewed cell's space sees all of it. */
    uint32_t space = atomic_load_explicit(&header->space, memory_order_acquire);
    uint32_t here = spec->owned && space != 0 ? pshm_process_space() : 0;
    return here != 0 && here != space ? -EXDEV : 0;
}

/* Make the guard of what was seen to be zeros, as any number of processes may at
 * once: all of them set the same words, none of which changes afterwards, and
 * each only from zero.  Then the magic says so.  Returns 0 or -errno. */
static int
raise_guard(struct pshm_primitive *primitive)
{
    unsigned words[GUARD_WORDS], none = 0;
    if (atomic_load(&primitive->header.magic) != 0) {
        return 0;
    }
    int rc = model_guard(words);
    if (rc < 0) {
        return rc;
    }
    atomic_uint *target = (atomic_uint *)(void *)&primitive->header.guard;
    for (size_t i = 0; i < GUARD_WORDS; i++) {
        unsigned zero = 0;
        if (words[i] != 0) {
            (void)atomic_compare_exchange_strong(&target[i], &zero, words[i]);
        }
    }
    (void)atomic_compare_exchange_strong(&primitive->header.magic, &none,
                                         PSHM_PRIMITIVE_MAKING);
    return 0;
}

static void
wipe(struct pshm_primitive *primitive, size_t size)
{
    memset(primitive->payload, 0, sizeof(primitive->payload));
    memset((char *)primitive + sizeof(*primitive), 0,
           size - sizeof(*primitive));
}

/* Under the guard, while it is being made. */
static int
make_guarded(struct pshm_primitive *primitive,
             const struct pshm_primitive_params *spec)
{
    struct pshm_header *header = &primitive->header;
    if (!is_blank(primitive, spec->size)) {
        return -EBADMSG;
    }
    int rc = spec->init == NULL ? 0 : spec->init(primitive, spec->how);
    if (rc < 0) {
        wipe(primitive, spec->size);
        return rc;
    }
    header->version = VERSION;
    header->kind = (uint8_t)spec->kind;
    header->flags = spec->flags;
    header->library = LIBRARY;
    header->mutex_size = sizeof(pthread_mutex_t);
    header->sem_size = sizeof(sem_t);
    atomic_store_explicit(&header->space,
                          spec->owned ? pshm_process_space() : 0,
                          memory_order_relaxed);
    /* Release: who sees the magic sees all of the cell. */
    atomic_store_explicit(&header->magic, PSHM_PRIMITIVE_MAGIC,
                          memory_order_release);
    return 0;
}

int
pshm_primitive_make(struct pshm_primitive *primitive,
                    const struct pshm_primitive_params *spec, int64_t deadline,
                    enum pshm_primitive_kind *found)
{
    struct pshm_mutex_state mstate = {0};
    int rc = pshm_primitive_check(primitive, spec, found);
    if (rc != -ENOENT) {
        return rc == 0 ? -EEXIST : rc;
    }
    rc = raise_guard(primitive);
    if (rc == 0) {
        rc = pshm_robust_open(&primitive->header.guard, 0, &mstate);
    }
    if (rc == 0) {
        rc = pshm_robust_lock(&primitive->header.guard, &mstate, deadline);
    }
    if (rc < 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    /* Release: who sees what is written from here on sees the magic. */
    atomic_thread_fence(memory_order_release);
    bool died = rc == -EOWNERDEAD;
    rc = pshm_primitive_check(primitive, spec, found);
    if (rc == -ENOENT) {
        if (died) {
            wipe(primitive, spec->size);
        }
        rc = make_guarded(primitive, spec);
    }
    else if (rc == 0) {
        rc = -EEXIST;
    }
    if (died) {
        pshm_robust_repair(&primitive->header.guard);
    }
    if (pshm_robust_unlock(&primitive->header.guard, &mstate) < 0) {
        rc = pshm_mutex_state_held(&mstate) ? -ENOTRECOVERABLE : -EBADMSG;
    }
    return rc;
}

int
pshm_primitive_renew(struct pshm_primitive *primitive,
                     const struct pshm_primitive_params *spec)
{
    struct pshm_header *header = &primitive->header;
    unsigned words[GUARD_WORDS];
    int rc = model_guard(words);
    wipe(primitive, spec->size);
    if (rc == 0 && spec->init != NULL) {
        rc = spec->init(primitive, spec->how);
    }
    if (rc < 0) {
        wipe(primitive, spec->size);
        return rc;
    }
    memcpy(&header->guard, words, sizeof(header->guard));
    header->flags = spec->flags;
    /* Release: who sees the space sees all of the cell. */
    atomic_store_explicit(&header->space, pshm_process_space(),
                          memory_order_release);
    return 0;
}

int
pshm_primitive_named(const struct pshm_name *name,
                     enum pshm_primitive_kind *found)
{
    struct pshm_primitive primitive;
    *found = PSHM_PRIMITIVE_NONE;
    int fd = pshm_attach_open(name, O_RDONLY, 0);
    if (fd < 0) {
        return fd == -ENOENT ? 0 : pshm_exists(name);
    }
    ssize_t n = pread(fd, &primitive, sizeof(primitive), 0);
    pshm_fd_close(fd);
    if (n == (ssize_t)sizeof(primitive)
        && primitive.header.magic == PSHM_PRIMITIVE_MAGIC
        && primitive.header.version == VERSION) {
        *found = (enum pshm_primitive_kind)primitive.header.kind;
    }
    return 1;
}
