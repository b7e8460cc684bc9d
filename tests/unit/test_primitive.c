#include "check.h"
#include "peers.h"
#include "posix/sync/primitive.h"
#include "posix/host.h"
#include "posix/sync/lock.h"

#include <pthread.h>

/* A primitive with data behind its header. */
struct wide {
    struct pshm_primitive primitive;
    unsigned char rest[128];
};

struct place {
    struct wide wide;
    atomic_uint begun, made;            /* calls of init; makes that returned 0
                                         */
    atomic_uint ready;
};

static struct place *
fresh(void)
{
    return shared_memory(PAGE);
}

/* Fill the payload and the data behind the header with one byte. */
static int
fill(struct pshm_primitive *primitive, const void *how)
{
    struct wide *wide = (struct wide *)(void *)primitive;
    volatile unsigned char *payload = wide->primitive.payload,
                           *rest = wide->rest;
    unsigned char byte = *(const unsigned char *)how;
    for (size_t i = 0; i < sizeof(wide->primitive.payload); i++) {
        payload[i] = byte;
    }
    for (size_t i = 0; i < sizeof(wide->rest); i++) {
        rest[i] = byte;
    }
    return 0;
}

static bool
is_filled(const struct wide *wide, unsigned char byte)
{
    for (size_t i = 0; i < sizeof(wide->primitive.payload); i++) {
        if (wide->primitive.payload[i] != byte) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof(wide->rest); i++) {
        if (wide->rest[i] != byte) {
            return false;
        }
    }
    return true;
}

static const unsigned char an_x = 'x';
static const struct pshm_primitive_params params = {
    .kind = PSHM_PRIMITIVE_EVENT, .size = sizeof(struct wide), .flags = 5,
    .init = fill, .how = &an_x};
static const struct pshm_primitive_params owned = {
    .kind = PSHM_PRIMITIVE_EVENT, .size = sizeof(struct wide), .owned = true};

static int
make(struct pshm_primitive *primitive,
     const struct pshm_primitive_params *what)
{
    int rc;
    PATIENTLY(rc, pshm_primitive_make(primitive, what, before_long(), NULL));
    return rc;
}

static void
primitive_is_made_once_from_zeros(void)
{
    struct place *place = fresh();
    struct pshm_primitive *primitive = &place->wide.primitive;
    CHECK_IS(pshm_primitive_check(primitive, &params, NULL), -ENOENT);
    CHECK(!pshm_primitive_intact(primitive, PSHM_PRIMITIVE_EVENT));
    CHECK_IS(make(primitive, &params), 0);
    CHECK(is_filled(&place->wide, 'x'));
    CHECK_IS(primitive->header.kind, PSHM_PRIMITIVE_EVENT);
    CHECK_IS(primitive->header.flags, 5);
    CHECK_IS(primitive->header.space, 0);
    CHECK_IS(pshm_primitive_check(primitive, &params, NULL), 0);
    CHECK(pshm_primitive_intact(primitive, PSHM_PRIMITIVE_EVENT));
    CHECK(!pshm_primitive_intact(primitive, PSHM_PRIMITIVE_LOCK));

    unsigned char saved[sizeof(*place)];
    memcpy(saved, place, sizeof(saved));
    CHECK_IS(make(primitive, &params), -EEXIST);
    CHECK(memcmp(saved, (unsigned char *)place, sizeof(saved)) == 0);
    CHECK(munmap(place, PAGE) == 0);
}

/* The header is at offset 64: the magic number, the description, the guard. */
static void
other_bytes_are_refused_and_not_changed(void)
{
    static const struct {
        size_t from, to;
    } garbage[] = {
        {0, sizeof(struct wide)},
        {0, 4}, {0, 64}, {63, 64},
        {64, 68}, {67, 68},
        {68, 69}, {68, 80}, {68, 128},
        {80, 84}, {80, 128}, {124, 128},
        {128, sizeof(struct wide)},
        {sizeof(struct wide) - 1, sizeof(struct wide)},
    };
    for (size_t i = 0; i < COUNT(garbage); i++) {
        check_about("bytes %zu to %zu", garbage[i].from, garbage[i].to);
        struct place *place = fresh();
        memset((char *)place + garbage[i].from, 0xa5,
               garbage[i].to - garbage[i].from);
        unsigned char saved[sizeof(*place)];
        memcpy(saved, place, sizeof(saved));
        CHECK_IS(pshm_primitive_check(&place->wide.primitive, &params, NULL),
                 -EBADMSG);
        CHECK_IS(pshm_primitive_make(&place->wide.primitive, &params,
                                     PSHM_NEVER, NULL),
                 -EBADMSG);
        CHECK(memcmp(saved, (unsigned char *)place, sizeof(saved)) == 0);
        CHECK(munmap(place, PAGE) == 0);
    }
}

/* Another process overwrites the guard while the primitive is made. */
static int
fill_and_overwrite(struct pshm_primitive *primitive, const void *how)
{
    memset(&primitive->header.guard, 0xa5, sizeof(primitive->header.guard));
    return fill(primitive, how);
}

static int
make_with_overwritten_guard(void *context)
{
    bool forbidden = *(bool *)context;
    struct pshm_primitive_params hostile = params;
    struct place *place = fresh(), *other = fresh();
    hostile.init = fill_and_overwrite;
    if (forbidden) {                    /* the neighbours are unknown */
        pshm_fault_arm("get_robust_list", 1, PSHM_FAULT_FAIL_ON, EPERM);
    }
    int rc = make(&place->wide.primitive, &hostile);
    if (forbidden) {
        (void)pshm_fault_disarm();
    }
#ifdef PSHM_ROBUST_LINKS
    CHECK_IS(rc, forbidden ? -ENOTRECOVERABLE : -EBADMSG);
#endif
    if (rc != -ENOTRECOVERABLE) {
        CHECK(munmap(place, PAGE) == 0);
    }
    CHECK_IS(make(&other->wide.primitive, &params), 0);
    return 0;
}

static void
overwritten_guard_is_an_error(void)
{
    for (int forbidden = 0; forbidden < 2; forbidden++) {
        bool context = forbidden;
        CHECK_IS(child_run(make_with_overwritten_guard, &context), 0);
    }
}

/* The magic number says that a primitive is being made, but the guard is
 * invalid. */
static void
invalid_guard_is_refused(void)
{
    struct place *place = fresh();
    struct pshm_primitive *primitive = &place->wide.primitive;
    atomic_store(&primitive->header.magic, PSHM_PRIMITIVE_MAKING);
    CHECK_IS(pshm_primitive_check(primitive, &params, NULL), -EBADMSG);
    CHECK_IS(make(primitive, &params), -EBADMSG);
    CHECK_IS(pshm_robust_init(&primitive->header.guard, 0), 0);
    CHECK_IS(pshm_primitive_check(primitive, &params, NULL), -ENOENT);
    CHECK_IS(make(primitive, &params), 0);
    CHECK(munmap(place, PAGE) == 0);
}

static void
other_library_size_or_version_is_an_error(void)
{
    struct place *place = fresh();
    struct pshm_primitive *primitive = &place->wide.primitive;
    CHECK_IS(make(primitive, &params), 0);
    struct pshm_header saved = primitive->header;
    for (int i = 0; i < 4; i++) {
        check_about("member %d", i);
        primitive->header.version =
            (uint8_t)(primitive->header.version + (i == 0));
        primitive->header.library =
            (uint8_t)(primitive->header.library + (i == 1));
        primitive->header.mutex_size =
            (uint16_t)(primitive->header.mutex_size - (i == 2));
        primitive->header.sem_size =
            (uint16_t)(primitive->header.sem_size - (i == 3));
        CHECK_IS(pshm_primitive_check(primitive, &params, NULL), -ENOEXEC);
        CHECK_IS(make(primitive, &params), -ENOEXEC);
        primitive->header.version = saved.version;
        primitive->header.library = saved.library;
        primitive->header.mutex_size = saved.mutex_size;
        primitive->header.sem_size = saved.sem_size;
        CHECK_IS(pshm_primitive_check(primitive, &params, NULL), 0);
    }
    CHECK(munmap(place, PAGE) == 0);
}

/* Matters only for primitives that record the ids of threads. */
static void
other_pid_namespace_is_an_error(void)
{
    struct place *place = fresh();
    struct pshm_primitive *primitive = &place->wide.primitive;
    CHECK_IS(make(primitive, &owned), 0);
    CHECK_IS(primitive->header.space, pshm_process_space());
    CHECK_IS(pshm_primitive_check(primitive, &owned, NULL), 0);
    primitive->header.space++;
    CHECK_IS(pshm_primitive_check(primitive, &owned, NULL), -EXDEV);
    CHECK_IS(make(primitive, &owned), -EXDEV);
    CHECK_IS(pshm_primitive_check(primitive, &params, NULL), 0);
    primitive->header.space = 0;
    CHECK_IS(pshm_primitive_check(primitive, &owned, NULL), 0);
    CHECK(munmap(place, PAGE) == 0);
}

/* ---- a maker that fails, stops, or dies ---- */

static int
fill_and_fail(struct pshm_primitive *primitive, const void *how)
{
    (void)fill(primitive, how);
    return -ENOMEM;
}

static void
failed_init_leaves_nothing(void)
{
    struct place *place = fresh();
    struct pshm_primitive_params failing = params;
    failing.init = fill_and_fail;
    CHECK_IS(make(&place->wide.primitive, &failing), -ENOMEM);
    CHECK_IS(pshm_primitive_check(&place->wide.primitive, &params, NULL),
             -ENOENT);
    CHECK(is_filled(&place->wide, 0));
    CHECK_IS(make(&place->wide.primitive, &params), 0);
    CHECK(is_filled(&place->wide, 'x'));
    CHECK(munmap(place, PAGE) == 0);
}

static int
fill_and_stop(struct pshm_primitive *primitive, const void *how)
{
    primitive->payload[7] = 1;
    (void)raise(SIGSTOP);
    primitive->payload[7] = 0;
    return fill(primitive, how);
}

static int
make_and_stop(void *context)
{
    struct place *place = context;
    struct pshm_primitive_params stopping = params;
    stopping.init = fill_and_stop;
    CHECK_IS(make(&place->wide.primitive, &stopping), 0);
    return 0;
}

static void
wait_for_a_stopped_maker_times_out(void)
{
    struct place *place = fresh();
    struct pshm_primitive *primitive = &place->wide.primitive;
    pid_t child = child_start_stopped(make_and_stop, place);
    CHECK_IS(pshm_primitive_check(primitive, &params, NULL), -ENOENT);
    int64_t start = pshm_now();
    CHECK_IS(pshm_primitive_make(primitive, &params, PSHM_NEVER, NULL), -EINTR);
    CHECK(took(start, 50));
    CHECK_IS(pshm_primitive_make(primitive, &params, in_ms(10), NULL),
             -ETIMEDOUT);
    start = pshm_now();
    int rc;
    int64_t deadline = start + 120 * MS;
    PATIENTLY(rc, pshm_primitive_make(primitive, &params, deadline, NULL));
    CHECK_IS(rc, -ETIMEDOUT);
    CHECK(took(start, 120));
    CHECK_IS(primitive->payload[7], 1);
    CHECK(kill(child, SIGCONT) == 0);
    CHECK_IS(make(primitive, &params), -EEXIST);
    CHECK(is_filled(&place->wide, 'x'));
    CHECK_IS(child_wait(child), 0);
    CHECK(munmap(place, PAGE) == 0);
}

static void
bytes_of_a_dead_maker_are_cleared(void)
{
    struct place *place = fresh();
    pid_t child = child_start_stopped(make_and_stop, place);
    child_kill(child);
    CHECK_IS(pshm_primitive_check(&place->wide.primitive, &params, NULL),
             -ENOENT);
    CHECK_IS(place->wide.primitive.payload[7], 1);
    CHECK_IS(make(&place->wide.primitive, &owned), 0);
    CHECK(is_filled(&place->wide, 0));
    CHECK_IS(make(&place->wide.primitive, &owned), -EEXIST);
    CHECK(munmap(place, PAGE) == 0);
}

/* ---- many makers at once ---- */

struct maker {
    struct place *place;
    unsigned char byte;
};

/* Makers are killed one after the other until one completes. */
static int
make_with_own_byte(void *context)
{
    struct maker *maker = context;
    struct pshm_primitive_params mine = params;
    mine.how = &maker->byte;
    (void)atomic_fetch_add(&maker->place->ready, 1);
    int rc = make(&maker->place->wide.primitive, &mine);
    CHECK(rc == 0 || rc == -EEXIST);
    return 0;
}

static void
killed_makers_do_not_prevent_the_next(void)
{
    for (int round = 0; round < ROUNDS(60); round++) {
        struct place *place = fresh();
        for (unsigned i = 0; i < 4; i++) {
            struct maker maker = {place, (unsigned char)('a' + i)};
            pid_t child = child_start(make_with_own_byte, &maker);
            await(&place->ready, i + 1);
            int64_t deadline = pshm_now() + (int64_t)random_below(60) * 1000;
            while (pshm_now() < deadline) {
            }
            (void)kill(child, SIGKILL);
            int status = child_wait(child);
            CHECK(status == 0 || status == -SIGKILL);
        }
        int rc = make(&place->wide.primitive, &params);
        CHECK(rc == 0 || rc == -EEXIST);
        CHECK(is_filled(&place->wide, place->wide.primitive.payload[0]));
        CHECK(munmap(place, PAGE) == 0);
    }
}

/* ---- two calls at once, the second at each step of the first ---- */

struct two_makers {
    struct place *place;
    int rcs[2];
};

static void
begin_with_zeros(void *context)
{
    struct two_makers *makers = context;
    memset((void *)makers->place, 0, sizeof(*makers->place));
    makers->rcs[0] = makers->rcs[1] = 1;
}

static void
make_first(void *context)
{
    struct two_makers *makers = context;
    makers->rcs[0] = make(&makers->place->wide.primitive, &params);
}

static void
check_first(void *context)
{
    struct two_makers *makers = context;
    makers->rcs[0] =
        pshm_primitive_check(&makers->place->wide.primitive, &params, NULL);
}

/* Without a wait, because the first maker may have stopped in between. */
static int
make_now(void *context)
{
    struct two_makers *makers = context;
    int rc =
        pshm_primitive_make(&makers->place->wide.primitive, &params, 0, NULL);
    return rc == 0 ? 10 : rc == -EEXIST ? 11 : rc == -ETIMEDOUT ? 12 : 1;
}

static void
make_in_another_process(void *context)
{
    struct two_makers *makers = context;
    makers->rcs[1] = child_run(make_now, makers);
}

static void
one_maker_succeeded(void *context)
{
    struct two_makers *makers = context;
    CHECK_IS(makers->rcs[0], makers->rcs[1] == 10 ? -EEXIST : 0);
    CHECK(makers->rcs[1] >= 10);
    CHECK(is_filled(&makers->place->wide, 'x'));
    CHECK_IS(
        pshm_primitive_check(&makers->place->wide.primitive, &params, NULL),
        0);
}

static void
it_was_found_or_not_yet_made(void *context)
{
    struct two_makers *makers = context;
    CHECK(makers->rcs[0] == -ENOENT || makers->rcs[0] == 0);
    CHECK_IS(makers->rcs[1], 10);
}

static void
two_makers_at_once(void)
{
    struct two_makers makers = {.place = fresh()};
    const struct meeting meetings[] = {
        {begin_with_zeros, make_first, make_in_another_process,
         one_maker_succeeded},
        {begin_with_zeros, check_first, make_in_another_process,
         it_was_found_or_not_yet_made},
    };
    for (size_t i = 0; i < COUNT(meetings); i++) {
        meet_at_each_step(&meetings[i], &makers);
    }
    CHECK(munmap((void *)makers.place, PAGE) == 0);
}

/* A program that does not use this library writes other bytes. */
static void
write_other_byte(void *context)
{
    struct two_makers *makers = context;
    makers->place->wide.rest[9] = 'y';
}

static void
other_byte_is_still_there(void *context)
{
    struct two_makers *makers = context;
    CHECK(makers->rcs[0] == 0 || makers->rcs[0] == -EBADMSG);
    CHECK(makers->rcs[0] == 0
          || pshm_primitive_check(&makers->place->wide.primitive, &params, NULL)
                 < 0);
    unsigned char byte = makers->place->wide.rest[9];
    CHECK(byte == 'y' || (byte == 'x' && makers->rcs[0] == 0));
}

static void
bytes_written_meanwhile_are_not_overwritten(void)
{
    struct two_makers makers = {.place = fresh()};
    meet_at_each_step(&(struct meeting){begin_with_zeros, make_first,
                                        write_other_byte,
                                        other_byte_is_still_there},
                      &makers);
    CHECK(munmap((void *)makers.place, PAGE) == 0);
}

/* Both changes of the magic number happen while it is read. */
struct slow_maker {
    struct pshm_primitive *primitive, *model;
    int later;                          /* steps until the second change */
};

static void
complete_it(void *context)
{
    struct slow_maker *maker = context;
    *maker->primitive = *maker->model;
}

static void
begin_it(void *context)
{
    struct slow_maker *maker = context;
    maker->primitive->header.guard = maker->model->header.guard;
    atomic_store(&maker->primitive->header.magic, PSHM_PRIMITIVE_MAKING);
    pshm_fault_hook(complete_it, maker);
    pshm_fault_arm("atomic", maker->later, PSHM_FAULT_HOOK_BEFORE, 0);
}

static void
primitive_can_be_made_during_a_check(void)
{
    struct place *model = fresh(), *place = fresh();
    struct slow_maker maker = {&place->wide.primitive, &model->wide.primitive,
                               1};
    CHECK_IS(make(maker.model, &owned), 0);
    for (int first = 1, seen = first; first <= seen; first++) {
        for (maker.later = 1; maker.later <= seen; maker.later++) {
            memset((void *)place, 0, sizeof(*place));
            pshm_fault_arm("atomic", 0, PSHM_FAULT_FAIL, 0);
            CHECK_IS(pshm_primitive_check(maker.primitive, &owned, NULL),
                     -ENOENT);
            seen = pshm_fault_disarm();
            pshm_fault_hook(begin_it, &maker);
            pshm_fault_arm("atomic", first, PSHM_FAULT_HOOK_BEFORE, 0);
            int rc = pshm_primitive_check(maker.primitive, &owned, NULL);
            (void)pshm_fault_disarm();
            CHECK(rc == 0 || rc == -ENOENT);
        }
    }
    CHECK(munmap((void *)place, PAGE) == 0);
    CHECK(munmap((void *)model, PAGE) == 0);
}

/* ---- a named primitive ---- */

static void
kind_of_a_named_primitive_is_reported(void)
{
    struct pshm_name name = name_of("primitive"), absent = name_of("absent");
    enum pshm_primitive_kind found = PSHM_PRIMITIVE_LOCK;
    CHECK_IS(pshm_primitive_named(&absent, &found), 0);
    CHECK_IS(found, PSHM_PRIMITIVE_NONE);
    (void)make_plain(&name, 100, 0600, 0);      /* smaller than a primitive */
    CHECK_IS(pshm_primitive_named(&name, &found), 1);
    CHECK_IS(found, PSHM_PRIMITIVE_NONE);
    CHECK(truncate(name.path, (off_t)PAGE) == 0);
    CHECK_IS(pshm_primitive_named(&name, &found), 1);
    CHECK_IS(found, PSHM_PRIMITIVE_NONE);
    int fd = open(name.path, O_RDWR | O_CLOEXEC);
    struct pshm_primitive *primitive = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
                                  MAP_SHARED, fd, 0);
    CHECK((void *)primitive != MAP_FAILED);
    CHECK_IS(make(primitive, &params), 0);
    CHECK_IS(pshm_primitive_named(&name, &found), 1);
    CHECK_IS(found, PSHM_PRIMITIVE_EVENT);
    primitive->header.version++;
    CHECK_IS(pshm_primitive_named(&name, &found), 1);
    CHECK_IS(found, PSHM_PRIMITIVE_NONE);
    /* The object exists, although it cannot be opened. */
    pshm_fault_arm("shm_open", 1, PSHM_FAULT_FAIL, EACCES);
    CHECK_IS(pshm_primitive_named(&name, &found), 1);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK(munmap(primitive, PAGE) == 0);
    (void)close(fd);
    remove_plain(&name);
}

/* ---- one primitive at two addresses ---- */

struct two {
    pthread_barrier_t start;
    struct place *at[2];
    int rcs[2];
};

struct one_of_two {
    struct two *two;
    int which;
};

static void *
make_in_thread(void *context)
{
    struct one_of_two *mine = context;
    (void)pthread_barrier_wait(&mine->two->start);
    mine->two->rcs[mine->which]
        = make(&mine->two->at[mine->which]->wide.primitive, &params);
    return NULL;
}

static void
map_twice(struct two *two)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    for (int i = 0; i < 2; i++) {
        two->at[i] = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
                          0);
        CHECK(two->at[i] != MAP_FAILED);
    }
    (void)close(fd);
}

static void
unmap_both(struct two *two)
{
    for (int i = 0; i < 2; i++) {
        CHECK(munmap(two->at[i], PAGE) == 0);
    }
}

static void
primitive_is_the_same_at_any_address(void)
{
    for (int round = 0; round < ROUNDS(200); round++) {
        struct two two;
        struct one_of_two args[2] = {{&two, 0}, {&two, 1}};
        pthread_t threads[2];
        map_twice(&two);
        CHECK(pthread_barrier_init(&two.start, NULL, 2) == 0);
        for (int i = 0; i < 2; i++) {
            CHECK(pthread_create(&threads[i], NULL, make_in_thread, &args[i])
                  == 0);
        }
        for (int i = 0; i < 2; i++) {
            CHECK(pthread_join(threads[i], NULL) == 0);
            CHECK_IS(
                pshm_primitive_check(&two.at[i]->wide.primitive, &params, NULL),
                0);
            CHECK(is_filled(&two.at[i]->wide, 'x'));
        }
        CHECK(two.rcs[0] + two.rcs[1] == -EEXIST);
        (void)pthread_barrier_destroy(&two.start);
        unmap_both(&two);
    }
}

static int
init_lock(struct pshm_primitive *primitive, const void *how)
{
    (void)how;
    return pshm_lock_init((struct pshm_lock *)(void *)primitive->payload, 0);
}

static void
lock_is_the_same_at_any_address(void)
{
    const struct pshm_primitive_params a_lock = {
        .kind = PSHM_PRIMITIVE_LOCK, .size = sizeof(struct pshm_primitive),
        .owned = true, .init = init_lock};
    struct two two;
    struct pshm_lock *locks[2];
    struct pshm_mutex_state states[2] = {{0}, {0}};
    map_twice(&two);
    CHECK_IS(make(&two.at[0]->wide.primitive, &a_lock), 0);
    CHECK_IS(make(&two.at[1]->wide.primitive, &a_lock), -EEXIST);
    for (int i = 0; i < 2; i++) {
        locks[i] =
            (struct pshm_lock *)(void *)two.at[i]->wide.primitive.payload;
        CHECK_IS(pshm_lock_open(locks[i], 0, &states[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        CHECK_IS(pshm_lock_try(locks[i], &states[i]), 0);
        CHECK(pshm_lock_held(locks[!i]));
        CHECK_IS(pshm_lock_wait(locks[!i], &states[!i], PSHM_NEVER), -EDEADLK);
        CHECK_IS(pshm_lock_release(locks[!i], &states[!i]), -EPERM);
        CHECK(pshm_lock_held(locks[!i]));
        CHECK_IS(pshm_lock_release(locks[i], &states[i]), 0);
        CHECK(!pshm_lock_held(locks[!i]));
    }
    unmap_both(&two);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(primitive_is_made_once_from_zeros);
    RUN(other_bytes_are_refused_and_not_changed);
    RUN(overwritten_guard_is_an_error);
    RUN(invalid_guard_is_refused);
    RUN(other_library_size_or_version_is_an_error);
    RUN(other_pid_namespace_is_an_error);
    RUN(failed_init_leaves_nothing);
    RUN(wait_for_a_stopped_maker_times_out);
    RUN(bytes_of_a_dead_maker_are_cleared);
    RUN(killed_makers_do_not_prevent_the_next);
    RUN(two_makers_at_once);
    RUN(bytes_written_meanwhile_are_not_overwritten);
    RUN(primitive_can_be_made_during_a_check);
    RUN(kind_of_a_named_primitive_is_reported);
    RUN(primitive_is_the_same_at_any_address);
    RUN(lock_is_the_same_at_any_address);
    return finish();
}
