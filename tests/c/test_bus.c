#include "check.h"
#include "posix/object/bus.h"

#include <sys/syscall.h>

/* The pages past the end of the object, and the function that maps them. */
static char *lost;
static bool repairs, in_a_guard;
static volatile int repaired, called, blocked;

static void
bring_in(void)
{
    void *made = mmap(lost, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE
                                                 | MAP_ANONYMOUS, -1, 0);
    CHECK(made == lost);
}

static bool
repair(void *address)
{
    if (repairs && address == lost) {
        bring_in();
        repaired++;
        return true;
    }
    return false;
}

static bool
is_guarded(void)
{
    return in_a_guard;
}

static const struct pshm_bus_calls calls = {repair, is_guarded};

static void
lose_a_page(void)
{
    int fd = memfd_create("test", MFD_CLOEXEC);
    lost = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
    CHECK((void *)lost != MAP_FAILED);
    (void)close(fd);
}

static void
access_it(void)
{
    CHECK_IS(*(const volatile char *)lost, 0);
    CHECK(munmap(lost, PAGE) == 0);
}

static void
note_call(void)
{
    sigset_t mask;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &mask) == 0);
    called++;
    blocked = sigismember(&mask, SIGBUS) + 2 * sigismember(&mask, SIGUSR1);
    if (lost != NULL) {
        bring_in();
    }
}

static void
handle(int number)
{
    CHECK_IS(number, SIGBUS);
    note_call();
}

static void
handle_with_info(int number, siginfo_t *info, void *context)
{
    CHECK(context != NULL);
    CHECK(lost == NULL || info->si_addr == lost);
    handle(number);
}

static void
set_action(int flags)
{
    struct sigaction action = {.sa_flags = flags};
    if (flags & SA_SIGINFO) {
        action.sa_sigaction = handle_with_info;
    }
    else {
        action.sa_handler = handle;
    }
    (void)sigemptyset(&action.sa_mask);
    (void)sigaddset(&action.sa_mask, SIGUSR1);
    CHECK(sigaction(SIGBUS, &action, NULL) == 0);
}

static void
install(void)
{
    CHECK_IS(pshm_bus_install(&calls), 0);
}

static bool
is_current(void (*handler)(int))
{
    struct sigaction action;
    return sigaction(SIGBUS, NULL, &action) == 0
           && action.sa_handler == handler;
}

static void
check_child(int (*function)(void *context), int status)
{
    CHECK_IS(child_run(function, NULL), status);
}

/* ---- the action before ---- */

static int
remove_what_is_not_installed(void *context)
{
    (void)context;
    set_action(0);
    pshm_bus_remove();
    CHECK(is_current(handle));
    install();
    pshm_fault_arm("sigaction", 1, PSHM_FAULT_FAIL, EINVAL);
    pshm_bus_remove();
    CHECK(!is_current(handle));
    pshm_fault_arm("sigaction", 2, PSHM_FAULT_FAIL, EINVAL);
    pshm_bus_remove();
    CHECK(!is_current(handle));
    (void)pshm_fault_disarm();
    pshm_bus_remove();
    CHECK(is_current(handle));
    pshm_fault_arm("sigaction", 1, PSHM_FAULT_FAIL, EINVAL);
    CHECK_IS(pshm_bus_install(&calls), -EINVAL);
    (void)pshm_fault_disarm();
    CHECK(is_current(handle));
    return 0;
}

static void
only_what_is_installed_is_removed(void)
{
    check_child(remove_what_is_not_installed, 0);
}

static int
access_what_is_repaired(void *context)
{
    (void)context;
    set_action(0);
    install();
    install();
    lose_a_page();
    repairs = true;
    errno = 4711;
    access_it();
    CHECK_IS(errno, 4711);
    CHECK(repaired == 1 && called == 0);
    pshm_bus_remove();
    CHECK(is_current(handle));
    return 0;
}

static void
access_that_is_repaired_is_made_again(void)
{
    check_child(access_what_is_repaired, 0);
}

static int
access_with_each_action(void *context)
{
    static const int flags[] = {0, SA_SIGINFO, SA_NODEFER,
                                SA_SIGINFO | SA_NODEFER};
    (void)context;
    for (size_t i = 0; i < COUNT(flags); i++) {
        check_about("flags %x", (unsigned)flags[i]);
        set_action(flags[i]);
        install();
        called = 0;
        lose_a_page();
        access_it();
        CHECK_IS(called, 1);
        CHECK_IS(blocked, flags[i] & SA_NODEFER ? 2 : 3);
        pshm_bus_remove();
    }
    return 0;
}

static void
access_that_is_not_repaired_is_for_the_action_before(void)
{
    check_child(access_with_each_action, 0);
}

static int
access_twice(void *context)
{
    (void)context;
    set_action((int)SA_RESETHAND);
    install();
    lose_a_page();
    access_it();
    CHECK_IS(called, 1);
    lose_a_page();
    access_it();
    return 0;
}

static void
action_for_one_signal_is_taken_once(void)
{
    check_child(access_twice, -SIGBUS);
}

static int
ignore_what_is_sent(void *context)
{
    (void)signal(SIGBUS, SIG_IGN);
    install();
    CHECK(kill(getpid(), SIGBUS) == 0);
    if (context != NULL) {
        lose_a_page();
        access_it();
    }
    return 0;
}

/* The kernel ends a process that ignores its own. */
static void
only_a_signal_that_was_sent_can_be_ignored(void)
{
    int access = 1;
    CHECK_IS(child_run(ignore_what_is_sent, NULL), 0);
    CHECK_IS(child_run(ignore_what_is_sent, &access), -SIGBUS);
}

static int
send_to_the_default(void *context)
{
    (void)context;
    (void)signal(SIGBUS, SIG_DFL);
    install();
    CHECK(kill(getpid(), SIGBUS) == 0);
    return 0;
}

static int
access_with_the_default(void *context)
{
    (void)context;
    (void)signal(SIGBUS, SIG_DFL);
    install();
    lose_a_page();
    access_it();
    return 0;
}

static void
default_ends_the_process(void)
{
    check_child(send_to_the_default, -SIGBUS);
    check_child(access_with_the_default, -SIGBUS);
}

static int
access_once(void *context)
{
    (void)context;
    set_action((int)SA_RESETHAND);
    install();
    lose_a_page();
    access_it();
    CHECK_IS(called, 1);
    pshm_bus_remove();
    CHECK(is_current(SIG_DFL));
    return 0;
}

static void
action_for_one_signal_is_the_default_then(void)
{
    check_child(access_once, 0);
}

/* ---- a handler on top of ours ---- */

static struct sigaction below;

/* As a library does that keeps what it replaced. */
static void
call_below(int number, siginfo_t *info, void *context)
{
    called++;
    below.sa_sigaction(number, info, context);
}

static int
install_on_top(void *context)
{
    (void)context;
    set_action(SA_SIGINFO);
    install();
    struct sigaction action = {.sa_sigaction = call_below,
                               .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGBUS, &action, &below) == 0);
    pshm_bus_remove();                  /* it stays below the other handler */
    install();
    lose_a_page();
    access_it();
    CHECK_IS(called, 2);
    pshm_bus_remove();
    CHECK(!is_current(handle));
    /* The same handler again, so no other is above it. */
    install();
    called = 0;
    lose_a_page();
    access_it();
    CHECK_IS(called, 2);
    CHECK(sigaction(SIGBUS, &action, NULL) == 0);
    install();
    called = 0;
    lose_a_page();
    access_it();
    CHECK_IS(called, 2);
    repairs = true;
    lose_a_page();
    access_it();
    CHECK_IS(repaired, 1);
    return 0;
}

static void
handler_on_top_may_call_ours(void)
{
    check_child(install_on_top, 0);
}

/* Of very many only the last ones are known. */
static int
install_many(void *context)
{
    (void)context;
    for (unsigned i = 0; i < 16; i++) {
        set_action((i & 1 ? SA_RESTART : 0) | (i & 2 ? SA_NODEFER : 0)
                   | (i & 4 ? SA_ONSTACK : 0) | (i & 8 ? SA_SIGINFO : 0));
        install();
    }
    lose_a_page();
    access_it();
    CHECK_IS(called, 1);
    for (unsigned i = 0; i < 16; i++) {
        pshm_bus_remove();
    }
    CHECK(is_current((void (*)(int))(uintptr_t)handle_with_info)
          || is_current(handle));
    return 0;
}

static void
many_handlers_are_installed_one_upon_another(void)
{
    check_child(install_many, 0);
}

/* As if another thread removed it between the kernel's call and its start. */
static int
call_after_its_end(void *context)
{
    struct sigaction action, ours;
    siginfo_t info = {.si_code = BUS_OBJERR};
    set_action(SA_SIGINFO);
    install();
    CHECK(sigaction(SIGBUS, NULL, &ours) == 0);
    pshm_bus_remove();
    ours.sa_sigaction(SIGBUS, &info, &action);
    CHECK_IS(called, 1);
    if (context != NULL) {
        action = (struct sigaction){.sa_handler = SIG_DFL};
        CHECK(sigaction(SIGBUS, &action, NULL) == 0);
        info.si_code = SI_USER;
        ours.sa_sigaction(SIGBUS, &info, &action);
    }
    return 0;
}

static void
handler_that_was_removed_takes_the_action_now(void)
{
    check_child(call_after_its_end, 0);
    CHECK_IS(child_run(call_after_its_end, (void *)&lost), -SIGBUS);
}

/* ---- a signal that the thread sends to itself ---- */

static int
raise_in_a_guard(void *context)
{
    (void)context;
    set_action(0);
    install();
    (void)raise(SIGBUS);
    CHECK_IS(called, 1);
    in_a_guard = true;
    (void)raise(SIGBUS);
    CHECK_IS(called, 1);
    in_a_guard = false;
    pshm_bus_send_postponed();
    CHECK_IS(called, 2);
    pshm_bus_send_postponed();
    CHECK_IS(called, 2);
    /* It was for an access that has been repaired. */
    in_a_guard = repairs = true;
    (void)raise(SIGBUS);
    lose_a_page();
    access_it();
    pshm_bus_send_postponed();
    CHECK(repaired == 1 && called == 2);
    return 0;
}

static void
signal_to_oneself_is_postponed_in_a_guard(void)
{
    check_child(raise_in_a_guard, 0);
}

static int
signal_the_parent(void *context)
{
    pid_t parent = *(pid_t *)context;
    return syscall(SYS_tgkill, parent, parent, SIGBUS) < 0;
}

static int
be_signalled(void *context)
{
    pid_t self = getpid();
    (void)context;
    set_action(0);
    install();
    in_a_guard = true;
    CHECK_IS(child_run(signal_the_parent, &self), 0);
    CHECK_IS(called, 1);
    return 0;
}

static void
signal_of_another_process_is_not_postponed(void)
{
    check_child(be_signalled, 0);
}

int
main(void)
{
    RUN(only_what_is_installed_is_removed);
    RUN(access_that_is_repaired_is_made_again);
    RUN(access_that_is_not_repaired_is_for_the_action_before);
    RUN(action_for_one_signal_is_taken_once);
    RUN(action_for_one_signal_is_the_default_then);
    RUN(only_a_signal_that_was_sent_can_be_ignored);
    RUN(default_ends_the_process);
    RUN(handler_on_top_may_call_ours);
    RUN(many_handlers_are_installed_one_upon_another);
    RUN(handler_that_was_removed_takes_the_action_now);
    RUN(signal_to_oneself_is_postponed_in_a_guard);
    RUN(signal_of_another_process_is_not_postponed);
    return finish();
}
