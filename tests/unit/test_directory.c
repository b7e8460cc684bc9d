#include "check.h"
#include "posix/object/directory.h"

static int
count(const struct pshm_names *names)
{
    int total = 0;
    for (size_t at = 0; at < names->length;
         at += strlen(names->text + at) + 1) {
        total++;
    }
    return total;
}

/* More and longer names than fit into the initial list. */
static void
many_names_are_listed(void)
{
    enum { MANY = 300 };
    struct pshm_name name;
    struct pshm_names names;
    char suffix[PSHM_NAME_MAX];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(suffix, sizeof(suffix), "%0*d", i % 200 + 1, i);
        name = name_of(suffix);
        int fd = open(name.path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        CHECK(fd >= 0);
        (void)close(fd);
    }
    int made = names_with(prefix());
    CHECK_IS(pshm_names_list(prefix(), &names), 0);
    CHECK_IS(count(&names), made);
    for (size_t at = 0; at < names.length;
         at += strlen(names.text + at) + 1) {
        CHECK(pshm_name_parse(names.text + at, strlen(names.text + at), &name)
              == NULL);
        remove_plain(&name);
    }
    CHECK_IS(names_with(prefix()), 0);
    pshm_names_free(&names);
}

/* The number of calls of readdir depends on the files of other programs. */
static void
each_failure_is_returned(void)
{
    static const struct {
        const char *call;
        int nth, err;
    } faults[] = {{"opendir", 1, EACCES}, {"opendir", 1, EMFILE},
                  {"opendir", 1, ENOMEM}, {"readdir", 1, EIO},
                  {"readdir", 3, EIO},    {"readdir", 4, ENOMEM},
                  {"realloc", 1, ENOMEM}};
    struct pshm_name name = name_of("object");
    struct pshm_names names;
    (void)make_plain(&name, 1, 0600, 0);
    struct census before = census_take();
    for (size_t i = 0; i < COUNT(faults); i++) {
        check_about("call %d of %s, errno %d", faults[i].nth, faults[i].call,
                    faults[i].err);
        pshm_fault_arm(faults[i].call, faults[i].nth, PSHM_FAULT_FAIL,
                       faults[i].err);
        CHECK_IS(pshm_names_list(prefix(), &names), -faults[i].err);
        CHECK_IS(pshm_fault_disarm(), faults[i].nth);
        pshm_names_free(&names);
        CHECK_NOTHING_LEFT(before);
    }
    remove_plain(&name);
}

static int
list_empty_mount(void *context)
{
    struct pshm_names names;
    dev_t dev = 0;
    struct stat st;
    (void)context;
    if (mount_own(PSHM_DIR, "size=1m") != 0) {
        return CANNOT;
    }
    CHECK_IS(pshm_names_list("", &names), 0);
    CHECK_IS(names.length, 0);
    pshm_names_free(&names);
    CHECK_IS(pshm_directory_device(&dev), 0);
    CHECK(stat(PSHM_DIR, &st) == 0);
    CHECK(dev == st.st_dev);
    return 0;
}

static void
empty_directory_is_an_empty_list(void)
{
    CHECK_IN_CHILD(list_empty_mount, NULL, "cannot mount");
}

static void
device_is_reported(void)
{
    dev_t dev = 0;
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 1, 0600, 0);
    CHECK_IS(pshm_directory_device(&dev), 0);
    CHECK(dev == id.dev);
    pshm_fault_arm("stat", 1, PSHM_FAULT_FAIL, EACCES);
    CHECK_IS(pshm_directory_device(&dev), -EACCES);
    (void)pshm_fault_disarm();
    remove_plain(&name);
}

int
main(void)
{
    RUN(many_names_are_listed);
    RUN(each_failure_is_returned);
    RUN(empty_directory_is_an_empty_list);
    RUN(device_is_reported);
    return finish();
}
