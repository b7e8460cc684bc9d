#include "cell.h"

#include <semaphore.h>
#include <string.h>

#include "futex.h"
#include "host.h"

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
is_blank(const struct pshm_cell *cell, size_t size)
{
    return all_zero(cell->payload, sizeof(cell->payload))
           && all_zero((const char *)cell + sizeof(*cell),
                       size - sizeof(*cell));
}

/* The words of a guard that was just made. */
enum { GUARD_WORDS = sizeof(struct pshm_robust) / sizeof(unsigned) };

static int
model_guard(unsigned words[GUARD_WORDS])
{
    struct pshm_robust model;
    memset(&model, 0, sizeof(model));
    int rc = pshm_robust_init(&model, 0);
    if (rc == 0) {
        memcpy(words, &model, sizeof(model));
        (void)pthread_mutex_destroy(&model.mutex);
    }
    return rc;
}

/* A magic of 0: zeros, or with a guard what a maker may have left?  Returns 0 or
 * -EBADMSG. */
static int
check_unmade(const struct pshm_cell *cell, size_t size,
             const unsigned words[GUARD_WORDS])
{
    const atomic_uint *target
        = (const atomic_uint *)(const void *)&cell->tag.guard;
    /* All else is written after the guard was made, so look in this order. */
    bool blank = is_blank(cell, size)
                 && all_zero(&cell->tag.version,
                             offsetof(struct pshm_tag, guard)
                                 - offsetof(struct pshm_tag, version));
    for (size_t i = 0; i < GUARD_WORDS; i++) {
        blank = blank && (words[i] != 0 || atomic_load(&target[i]) == 0);
    }
    for (size_t i = 0; i < GUARD_WORDS; i++) {
        unsigned word = atomic_load(&target[i]);
        if (words[i] != 0 && word != words[i] && (word != 0 || !blank)) {
            return -EBADMSG;
        }
    }
    return 0;
}

int
pshm_cell_look(const struct pshm_cell *cell, const struct pshm_cell_spec *spec,
               enum pshm_cell_kind *found)
{
    const struct pshm_tag *tag = &cell->tag;
    unsigned magic = atomic_load_explicit(&tag->magic, memory_order_acquire);
    if (magic == 0) {
        unsigned words[GUARD_WORDS];
        int rc = model_guard(words);
        if (rc == 0) {
            rc = check_unmade(cell, spec->size, words);
        }
        return rc < 0 ? rc : -ENOENT;
    }
    if (magic != PSHM_CELL_MAGIC) {
        return -EBADMSG;
    }
    if (tag->version != VERSION || tag->library != LIBRARY
        || tag->mutex_size != sizeof(pthread_mutex_t)
        || tag->sem_size != sizeof(sem_t)) {
        return -ENOEXEC;
    }
    if (tag->kind != spec->kind) {
        if (found != NULL) {
            *found = (enum pshm_cell_kind)tag->kind;
        }
        return -EPROTOTYPE;
    }
    uint32_t here = spec->owned && tag->space != 0 ? pshm_process_space() : 0;
    return here != 0 && here != tag->space ? -EXDEV : 0;
}

/* Make the guard, as any number of processes may at once: all of them set the
 * same words, none of which changes afterwards, and each only from zero.
 * Returns 0; -EBADMSG: there is something else, and it stays as it is; or
 * -errno. */
static int
raise_guard(struct pshm_cell *cell, size_t size)
{
    unsigned words[GUARD_WORDS];
    int rc = model_guard(words);
    if (rc == 0) {
        rc = check_unmade(cell, size, words);
    }
    if (rc != 0) {
        return rc;
    }
    atomic_uint *target = (atomic_uint *)(void *)&cell->tag.guard;
    for (size_t i = 0; i < GUARD_WORDS; i++) {
        unsigned zero = 0;
        if (words[i] != 0) {
            (void)atomic_compare_exchange_strong(&target[i], &zero, words[i]);
        }
    }
    return 0;
}

static void
wipe(struct pshm_cell *cell, size_t size)
{
    memset(cell->payload, 0, sizeof(cell->payload));
    memset((char *)cell + sizeof(*cell), 0, size - sizeof(*cell));
}

/* Under the guard, with a magic of 0. */
static int
make_guarded(struct pshm_cell *cell, const struct pshm_cell_spec *spec)
{
    struct pshm_tag *tag = &cell->tag;
    if (!is_blank(cell, spec->size)) {
        return -EBADMSG;
    }
    int rc = spec->init == NULL ? 0 : spec->init(cell, spec->how);
    if (rc < 0) {
        wipe(cell, spec->size);
        return rc;
    }
    tag->version = VERSION;
    tag->kind = (uint8_t)spec->kind;
    tag->flags = spec->flags;
    tag->library = LIBRARY;
    tag->mutex_size = sizeof(pthread_mutex_t);
    tag->sem_size = sizeof(sem_t);
    tag->space = spec->owned ? pshm_process_space() : 0;
    /* Release: who sees the magic sees all of the cell. */
    atomic_store_explicit(&tag->magic, PSHM_CELL_MAGIC,
                          memory_order_release);
    return 0;
}

int
pshm_cell_make(struct pshm_cell *cell, const struct pshm_cell_spec *spec,
               int64_t until, enum pshm_cell_kind *found)
{
    struct pshm_grip grip = {0};
    int rc = pshm_cell_look(cell, spec, found);
    if (rc != -ENOENT) {
        return rc == 0 ? -EEXIST : rc;
    }
    rc = raise_guard(cell, spec->size);
    if (rc == 0) {
        rc = pshm_robust_open(&cell->tag.guard, 0, &grip);
    }
    if (rc == 0) {
        rc = pshm_robust_lock(&cell->tag.guard, &grip, until);
    }
    if (rc < 0 && rc != -EOWNERDEAD) {
        return rc;
    }
    bool died = rc == -EOWNERDEAD;
    rc = pshm_cell_look(cell, spec, found);
    if (rc == -ENOENT) {
        if (died) {
            wipe(cell, spec->size);
        }
        rc = make_guarded(cell, spec);
    }
    else if (rc == 0) {
        rc = -EEXIST;
    }
    if (died) {
        pshm_robust_repair(&cell->tag.guard);
    }
    if (pshm_robust_unlock(&cell->tag.guard, &grip) < 0) {
        rc = pshm_grip_held(&grip) ? -ENOTRECOVERABLE : -EBADMSG;
    }
    return rc;
}
