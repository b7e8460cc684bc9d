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

static const struct pshm_primitive_params spec = {
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
leave_one(void)
{
    struct place place = {.name = name_of("left")};
    (void)make_plain(&place.name, (off_t)PAGE, 0600, 0);
    place.fd = open(place.name.path, O_RDWR | O_CLOEXEC);
    void *base = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                      place.fd, 0);
    CHECK(base != MAP_FAILED);
    place.primitive = base;
    CHECK_IS(pshm_primitive_make(place.primitive, &spec, before_long(), NULL),
             0);
    place.primitive->header.space++;
    CHECK_IS(pshm_primitive_check(place.primitive, &spec, NULL), -EXDEV);
    CHECK_IS(pshm_use_lock_take(place.fd), 0);
    return place;
}

static void
remove_one(struct place *place)
{
    CHECK(munmap(place->primitive, PAGE) == 0);
    CHECK(close(place->fd) == 0);
    remove_plain(&place->name);
}

/* Another process's descriptor of the object, with the use lock or not. */
static int
open_it(const struct place *place, bool uses)
{
    int fd = open(place->name.path, O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_IS(uses ? pshm_use_lock_take(fd) : 0, 0);
    return fd;
}

static void
check_lease_kept(const struct place *place)
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
check_as_left(const struct place *place)
{
    CHECK_IS(pshm_primitive_check(place->primitive, &spec, NULL), -EXDEV);
    CHECK_IS(place->primitive->header.flags, 5);
    CHECK_IS(place->primitive->payload[0], 'x');
}

static void
placed_that_no_process_uses_is_made_anew(void)
{
    struct place place = leave_one();
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(pshm_primitive_check(place.primitive, &spec, NULL), 0);
    CHECK_IS(place.primitive->header.flags, 6);
    CHECK_IS(place.primitive->payload[63], 'y');
    check_lease_kept(&place);
    remove_one(&place);
}

static void
placed_of_a_kind_without_init_is_all_zeros(void)
{
    struct place place = leave_one();
    struct pshm_primitive_params plain = renewed;
    plain.init = NULL;
    CHECK_IS(pshm_renew(place.fd, place.primitive, &plain, 0), 0);
    CHECK_IS(pshm_primitive_check(place.primitive, &spec, NULL), 0);
    CHECK_IS(place.primitive->payload[0], 0);
    remove_one(&place);
}

static void
placed_in_order_stays_as_it_is(void)
{
    struct place place = leave_one();
    place.primitive->header.space--;
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(place.primitive->header.flags, 5);
    CHECK_IS(place.primitive->payload[0], 'x');
    remove_one(&place);
}

static void
placed_of_another_kind_is_told(void)
{
    struct place place = leave_one();
    place.primitive->header.kind = PSHM_PRIMITIVE_BARRIER;
    CHECK_IS(renew(&place, 0), -EPROTOTYPE);
    CHECK_IS(place.primitive->payload[0], 'x');
    remove_one(&place);
}

static void
placed_that_a_process_uses_stays_as_it_is(void)
{
    struct place place = leave_one();
    int other = open_it(&place, true);
    CHECK_IS(renew(&place, 0), -EXDEV);
    int64_t start = pshm_now();
    CHECK_IS(renew(&place, start + 20 * MS), -EXDEV);
    CHECK(took(start, 20));
    check_as_left(&place);
    check_lease_kept(&place);
    CHECK(close(other) == 0);
    CHECK_IS(renew(&place, 0), 0);
    remove_one(&place);
}

/* Another process that tried had the lock for a moment. */
static void
release_it(void *context)
{
    CHECK(close(*(int *)context) == 0);
}

static void
user_that_leaves_is_waited_for(void)
{
    struct place place = leave_one();
    int other = open_it(&place, true);
    pshm_fault_hook(release_it, &other);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_AFTER, 0);
    CHECK_IS(renew(&place, before_long()), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK_IS(place.primitive->payload[0], 'y');
    remove_one(&place);
}

static void
renew_for_all(void *context)
{
    struct place *place = context;
    CHECK_IS(pshm_primitive_renew(place->primitive, &renewed), 0);
}

static void
placed_that_another_process_renews_meanwhile_is_in_order(void)
{
    struct place place = leave_one();
    int other = open_it(&place, true);
    pshm_fault_hook(renew_for_all, &place);
    pshm_fault_arm("clock_nanosleep", 1, PSHM_FAULT_HOOK_AFTER, 0);
    CHECK_IS(renew(&place, before_long()), 0);
    CHECK_IS(pshm_fault_disarm(), 1);
    CHECK(close(other) == 0);
    remove_one(&place);
}

static void
failure_leaves_it_as_it_was_to_others(void)
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
        struct place place = leave_one();
        bool waits = failures[i].err == EINTR;
        int other = open_it(&place, waits);
        /* The check of the primitive does not lock its guard. */
        pshm_fault_arm(failures[i].call, 1, PSHM_FAULT_FAIL, failures[i].err);
        CHECK_IS(renew(&place, before_long()), -failures[i].err);
        CHECK(pshm_fault_disarm() >= 1);
        CHECK_IS(pshm_primitive_check(place.primitive, &spec, NULL), -EXDEV);
        check_lease_kept(&place);
        CHECK(close(other) == 0);
        CHECK_IS(renew(&place, 0), 0);
        remove_one(&place);
    }
}

static void
failed_init_leaves_it_to_the_next_one(void)
{
    struct place place = leave_one();
    struct pshm_primitive_params failing = renewed;
    failing.init = refuse;
    CHECK_IS(pshm_renew(place.fd, place.primitive, &failing, 0), -ENOTSUP);
    CHECK_IS(pshm_primitive_check(place.primitive, &spec, NULL), -EXDEV);
    CHECK_IS(place.primitive->payload[0], 0);
    CHECK_IS(renew(&place, 0), 0);
    CHECK_IS(place.primitive->payload[0], 'y');
    remove_one(&place);
}

int
main(void)
{
    pshm_forks_watch();
    RUN(placed_that_no_process_uses_is_made_anew);
    RUN(placed_of_a_kind_without_init_is_all_zeros);
    RUN(placed_in_order_stays_as_it_is);
    RUN(placed_of_another_kind_is_told);
    RUN(placed_that_a_process_uses_stays_as_it_is);
    RUN(user_that_leaves_is_waited_for);
    RUN(placed_that_another_process_renews_meanwhile_is_in_order);
    RUN(failure_leaves_it_as_it_was_to_others);
    RUN(failed_init_leaves_it_to_the_next_one);
    return finish();
}
