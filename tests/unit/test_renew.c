#include "check.h"
#include "peers.h"
#include "posix/host.h"
#include "posix/object/use_lock.h"
#include "posix/sync/renew.h"

/* An object with a primitive that processes of an ended container have left. */
struct place {
    int fd;
    struct pshm_name name;
    struct pshm_primitive *primitive;
};

static int
fill(struct pshm_primitive *primitive, const void *how)
{
    memset(primitive->payload, *(const char *)how, sizeof(primitive->payload));
    return 0;
}

static int
refuse(struct pshm_primitive *primitive, const void *how)
{
    (void)fill(primitive, how);
    return -ENOTSUP;
}

static const struct pshm_primitive_params params = {
    .kind = PSHM_PRIMITIVE_EVENT,
    .size = sizeof(struct pshm_primitive),
    .owned = true,
    .flags = 5,
    .init = fill,
    .how = "x"};
static const struct pshm_primitive_params renewed = {
    .kind = PSHM_PRIMITIVE_EVENT,
    .size = sizeof(struct pshm_primitive),
    .owned = true,
    .flags = 6,
    .init = fill,
    .how = "y"};

static struct place
make_old(void)
{
    struct place place = {.name = name_of("left")};
    (void)make_plain(&place.name, (off_t)PAGE, 0600, 0);
    place.fd = open(place.name.path, O_RDWR | O_CLOEXEC);
    void *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                      place.fd, 0);
    CHECK(base != MAP_FAILED);
    place.primitive = base;
    CHECK_IS(pshm_primitive_make(place.primitive, &params, before_long(), NULL),
             0);
    place.primitive->header.space++;
    CHECK_IS(pshm_primitive_check(place.primitive, &params, NULL), -EXDEV);
    CHECK_IS(pshm_use_lock_take(place.fd), 0);
    return place;
}

static void
remove_old(struct place *place)
{
    CHECK(munmap(place->primitive, PAGE) == 0);
    CHECK(close(place->fd) == 0);
    remove_plain(&place->name);
}

/* A descriptor of the object, as of another process, with or without a use
 * lock. */
static int
open_it(const struct place *place, bool uses)
{
    int fd = open(place->name.path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_IS(uses ? pshm_use_lock_take(fd) : 0, 0);
    return fd;
}

static void
check_use_lock_held(const struct place *place)
{
    int fd = open_it(place, true);
    CHECK_IS(pshm_use_lock_try_exclusive(fd), -EAGAIN);
    CHECK(close(fd) == 0);
}

static int
renew(struct place *place, int64_t deadline)
{
    return pshm_renew(place->fd, place->primitive, &renewed, deadline);
}

static void
primitive_without_init_becomes_zeros(void)
{
    struct place place = make_old();
    struct pshm_primitive_params plain = renewed;
    plain.init = NULL;
    CHECK_IS(pshm_renew(place.fd, place.primitive, &plain, 0), 0);
    CHECK_IS(pshm_primitive_check(place.primitive, &params, NULL), 0);
    CHECK_IS(place.primitive->payload[0], 0);
    remove_old(&place);
}

/* Another process releases its use lock after a short time. */
static void
release_it(void *context)
{
    CHECK(close(*(int *)context) == 0);
}

static void
renew_waits_for_the_other_user(void)
{
    struct place place = make_old();
    int other = open_it(&place, true);
    pshm_fault_hook(release_it, &other);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_AFTER, 0);
    CHECK_IS(renew(&place, before_long()), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(place.primitive->payload[0], 'y');
    remove_old(&place);
}

static void
renew_meanwhile(void *context)
{
    struct place *place = context;
    CHECK_IS(pshm_primitive_renew(place->primitive, &renewed), 0);
}

static void
primitive_renewed_by_another_process_is_usable(void)
{
    struct place place = make_old();
    int other = open_it(&place, true);
    pshm_fault_hook(renew_meanwhile, &place);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_AFTER, 0);
    CHECK_IS(renew(&place, before_long()), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK(close(other) == 0);
    remove_old(&place);
}

static void
failure_leaves_an_old_primitive(void)
{
    static const struct {
        const char *call;
        int err;
    } failures[] = {
        {"flock", ENOLCK}, {"clock_nanosleep", EINTR},
        {"pthread_mutex_init", ENOTSUP},
    };
    for (size_t i = 0; i < COUNT(failures); i++) {
        check_about("%s", failures[i].call);
        struct place place = make_old();
        bool waits = failures[i].err == EINTR;
        int other = open_it(&place, waits);
        /* The check of the primitive does not lock its guard. */
        pshm_fault_arm(failures[i].call, 1, PSHM_FAULT_FAIL, failures[i].err);
        CHECK_IS(renew(&place, before_long()), -failures[i].err);
        CHECK(pshm_fault_disarm() >= 1);
        CHECK_IS(pshm_primitive_check(place.primitive, &params, NULL), -EXDEV);
        check_use_lock_held(&place);
        CHECK(close(other) == 0);
        CHECK_IS(renew(&place, 0), 0);
        remove_old(&place);
    }
}

static void
renew_works_after_a_failed_init(void)
{
    struct place place = make_old();
    struct pshm_primitive_params failing = renewed;
    failing.init = refuse;
    CHECK_IS(pshm_renew(place.fd, place.primitive, &failing, 0), -ENOTSUP);
    CHECK_IS(pshm_primitive_check(place.primitive, &params, NULL), -EXDEV);
    CHECK_IS(place.primitive->payload[0], 0);
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(place.primitive->payload[0], 'y');
    remove_old(&place);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(primitive_without_init_becomes_zeros);
    RUN(renew_waits_for_the_other_user);
    RUN(primitive_renewed_by_another_process_is_usable);
    RUN(failure_leaves_an_old_primitive);
    RUN(renew_works_after_a_failed_init);
    return finish();
}
