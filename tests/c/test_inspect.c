#include "check.h"
#include "posix/inspect.h"

#include <sys/file.h>
#include <time.h>

static struct pshm_inspected
inspect(const struct pshm_name *name)
{
    struct pshm_inspected found;
    CHECK_IS(pshm_inspect(name, &found), 0);
    return found;
}

static void
object_is_read_whole_or_in_part(void)
{
    struct pshm_name name = name_of("object");
    struct pshm_identity id = make_plain(&name, 5000, 0640, 'x');
    struct pshm_inspected found = inspect(&name);
    CHECK_IS(found.state, PSHM_FREE);
    CHECK_IS(found.head_length, PSHM_HEAD);
    CHECK_IS(found.head[0], 'x');
    CHECK_IS(found.head[PSHM_HEAD - 1], 'x');
    CHECK_IS(found.st.st_size, 5000);
    CHECK(found.st.st_ino == id.ino && found.st.st_dev == id.dev);
    CHECK(!found.acl);
    CHECK(truncate(name.path, 3) == 0);
    CHECK_IS(inspect(&name).head_length, 3);
    CHECK(truncate(name.path, 0) == 0);
    CHECK_IS(inspect(&name).head_length, 0);
    remove_plain(&name);
}

static void
access_time_stays(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 100, 0600, 'x');
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    CHECK(utimensat(AT_FDCWD, name.path, times, 0) == 0);
    (void)inspect(&name);
    struct stat st;
    CHECK(stat(name.path, &st) == 0);
    CHECK_IS(st.st_atim.tv_sec, 1);
    remove_plain(&name);
}

static void
user_is_seen_and_its_lock_stays(void)
{
    struct pshm_name name = name_of("object");
    (void)make_plain(&name, 100, 0600, 'x');
    int fd = open(name.path, O_RDONLY);
    CHECK(fd >= 0);
    CHECK_IS(inspect(&name).state, PSHM_IN_USE);
    CHECK(flock(fd, LOCK_EX | LOCK_NB) == 0);
    CHECK_IS(inspect(&name).state, PSHM_IN_USE);
    CHECK_IS(inspect(&name).head_length, 100);
    (void)close(fd);
    CHECK_IS(inspect(&name).state, PSHM_FREE);
    remove_plain(&name);
}

static void
other_files_are_not_objects(void)
{
    struct pshm_name name = name_of("object"), target = name_of("target");
    struct pshm_inspected found;
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    CHECK(mkfifo(name.path, 0600) == 0);
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    CHECK(unlink(name.path) == 0);
    CHECK(mkdir(name.path, 0700) == 0);
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    CHECK(rmdir(name.path) == 0);
    (void)make_plain(&target, 100, 0600, 'x');
    CHECK(symlink(target.path, name.path) == 0);
    CHECK_IS(pshm_inspect(&name, &found), -ENOENT);
    CHECK(unlink(name.path) == 0);
    remove_plain(&target);
}

int
main(void)
{
    RUN(object_is_read_whole_or_in_part);
    RUN(access_time_stays);
    RUN(user_is_seen_and_its_lock_stays);
    RUN(other_files_are_not_objects);
    return finish();
}
