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

/* Reads whole words: another process may be making the primitive at the same
 * time. */
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

/* The words of an unlocked guard. */
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

/* The magic number is not final: is the memory all zeros except for a guard
 * that other processes may have written in part? While the primitive is being
 * made, only the guard is checked. Returns 0 or -EBADMSG. */
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

/* Returns 1: the magic number has changed meanwhile; -ENOENT: there is no
 * primitive yet; -EBADMSG; or -errno. */
static int
inspect_unmade(const struct pshm_primitive *primitive, size_t size,
               unsigned magic)
{
    unsigned words[GUARD_WORDS];
    int rc = model_guard(words);
    if (rc < 0) {
        return rc;
    }
    rc = check_unmade(primitive, size, magic, words);
    /* Acquire: a process that read a maker's bytes also reads its magic
     * number. */
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&primitive->header.magic, memory_order_relaxed)
        != magic) {
        return 1;
    }
    return rc < 0 ? rc : -ENOENT;
}

int
pshm_primitive_check(const struct pshm_primitive *primitive,
                     const struct pshm_primitive_params *params,
                     enum pshm_primitive_kind *found)
{
    const struct pshm_header *header = &primitive->header;
    unsigned magic =
        atomic_load_explicit(&header->magic, memory_order_acquire);
    /* The magic number changes from 0 to MAKING to MAGIC. */
    for (int i = 0; i < 2 && (magic == 0 || magic == PSHM_PRIMITIVE_MAKING);
         i++) {
        int rc = inspect_unmade(primitive, params->size, magic);
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
    if (header->kind != params->kind) {
        if (found != NULL) {
            *found = (enum pshm_primitive_kind)header->kind;
        }
        return -EPROTOTYPE;
    }
    /* Acquire: a process that reads the namespace of a renewed primitive reads
     * all of it. */
    uint32_t space =
        atomic_load_explicit(&header->space, memory_order_acquire);
    uint32_t here = params->owned && space != 0 ? pshm_process_space() : 0;
    return here != 0 && here != space ? -EXDEV : 0;
}

/* Write the guard into memory that was all zeros. Any number of processes may
 * do this at once: all write the same words, each only in place of a zero, and
 * none changes afterwards. Then set the magic number to MAKING. Returns 0 or
 * -errno. */
static int
write_guard(struct pshm_primitive *primitive)
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

/* The caller holds the guard. */
static int
make_guarded(struct pshm_primitive *primitive,
             const struct pshm_primitive_params *params)
{
    struct pshm_header *header = &primitive->header;
    if (!is_blank(primitive, params->size)) {
        return -EBADMSG;
    }
    int rc = params->init == NULL ? 0 : params->init(primitive, params->how);
    if (rc < 0) {
        wipe(primitive, params->size);
        return rc;
    }
    header->version = VERSION;
    header->kind = (uint8_t)params->kind;
    header->flags = params->flags;
    header->library = LIBRARY;
    header->mutex_size = sizeof(pthread_mutex_t);
    header->sem_size = sizeof(sem_t);
    atomic_store_explicit(&header->space,
                          params->owned ? pshm_process_space() : 0,
                          memory_order_relaxed);
    /* Release: a process that reads the magic number reads all of the
     * primitive. */
    atomic_store_explicit(&header->magic, PSHM_PRIMITIVE_MAGIC,
                          memory_order_release);
    return 0;
}

int
pshm_primitive_make(struct pshm_primitive *primitive,
                    const struct pshm_primitive_params *params,
                    int64_t deadline, enum pshm_primitive_kind *found)
{
    struct pshm_mutex_state mstate = {0};
    int rc = pshm_primitive_check(primitive, params, found);
    if (rc != -ENOENT) {
        return rc == 0 ? -EEXIST : rc;
    }
    rc = write_guard(primitive);
    if (rc == 0) {
        rc = pshm_robust_open(&primitive->header.guard, 0, &mstate);
    }
    if (rc == 0) {
        rc = pshm_robust_lock(&primitive->header.guard, &mstate, deadline);
    }
    if (rc < 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    /* Release: a process that reads any byte written from here on also reads
     * the magic number. */
    atomic_thread_fence(memory_order_release);
    bool died = rc == -EOWNERDEAD;
    rc = pshm_primitive_check(primitive, params, found);
    if (rc == -ENOENT) {
        if (died) {
            wipe(primitive, params->size);
        }
        rc = make_guarded(primitive, params);
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
                     const struct pshm_primitive_params *params)
{
    struct pshm_header *header = &primitive->header;
    unsigned words[GUARD_WORDS];
    int rc = model_guard(words);
    wipe(primitive, params->size);
    if (rc == 0 && params->init != NULL) {
        rc = params->init(primitive, params->how);
    }
    if (rc < 0) {
        wipe(primitive, params->size);
        return rc;
    }
    memcpy(&header->guard, words, sizeof(header->guard));
    header->flags = params->flags;
    /* Release: a process that reads the namespace reads all of the primitive.
     */
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
