#include "check.h"
#include "posix/object/bus.h"

#include <sys/syscall.h>

/* The page past the end of the object, which repair maps. */
static char *lost;
static bool repairs, in_a_guard;
static volatile int repaired, called, blocked;

static void
map_it(void)
{
    void *made = mmap(lost, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE
                                                 | MAP_ANONYMOUS, -1, 0);
    CHECK(made == lost);
}

static bool
repair(void *address)
{
    if (repairs && address == lost) {
        map_it();
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
map_a_lost_page(void)
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
access_lost_page(void)
{
    map_a_lost_page();
    access_it();
}

static void
note_call(void)
{
    sigset_t mask;
    CHECK(sigprocmask(SIG_BLOCK, NULL, &mask) == 0);
    called++;
    blocked = sigismember(&mask, SIGBUS) + 2 * sigismember(&mask, SIGUSR1);
    if (lost != NULL) {
        map_it();
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

/* Install the handler when the action has these flags. */
static void
install_above(int flags)
{
    set_action(flags);
    install();
}

static bool
is_current(void (*handler)(int))
{
    struct sigaction action;
    return sigaction(SIGBUS, NULL, &action) == 0
           && action.sa_handler == handler;
}

/* ---- the previous action ---- */

static int
only_an_installed_handler_is_removed(void *context)
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

static int
repaired_access_is_repeated(void *context)
{
    (void)context;
    install_above(0);
    install();
    map_a_lost_page();
    repairs = true;
    errno = 4711;
    access_it();
    CHECK_IS(errno, 4711);
    CHECK(repaired == 1 && called == 0);
    pshm_bus_remove();
    CHECK(is_current(handle));
    return 0;
}

static int
other_accesses_go_to_the_previous_action(void *context)
{
    static const int flags[] = {0, SA_SIGINFO, SA_NODEFER,
                                SA_SIGINFO | SA_NODEFER};
    (void)context;
    for (size_t i = 0; i < COUNT(flags); i++) {
        check_about("flags %x", (unsigned)flags[i]);
        install_above(flags[i]);
        called = 0;
        access_lost_page();
        CHECK_IS(called, 1);
        CHECK_IS(blocked, flags[i] & SA_NODEFER ? 2 : 3);
        pshm_bus_remove();
    }
    return 0;
}

static int
resethand_action_is_called_once(void *context)
{
    (void)context;
    install_above((int)SA_RESETHAND);
    access_lost_page();
    CHECK_IS(called, 1);
    access_lost_page();
    return 0;
}

static int
ignore_sent_signal(void *context)
{
    (void)signal(SIGBUS, SIG_IGN);
    install();
    CHECK(kill(getpid(), SIGBUS) == 0);
    if (context != NULL) {
        access_lost_page();
    }
    return 0;
}

/* The kernel ends a process that ignores a SIGBUS of the kernel. */
static void
only_a_sent_signal_can_be_ignored(void)
{
    int access = 1;
    CHECK_IS(child_run(ignore_sent_signal, NULL), 0);
    CHECK_IS(child_run(ignore_sent_signal, &access), -SIGBUS);
}

static int
default_ends_the_process_after_a_sent_signal(void *context)
{
    (void)context;
    (void)signal(SIGBUS, SIG_DFL);
    install();
    CHECK(kill(getpid(), SIGBUS) == 0);
    return 0;
}

static int
default_ends_the_process_after_an_access(void *context)
{
    (void)context;
    (void)signal(SIGBUS, SIG_DFL);
    install();
    access_lost_page();
    return 0;
}

static int
resethand_action_becomes_the_default(void *context)
{
    (void)context;
    install_above((int)SA_RESETHAND);
    access_lost_page();
    CHECK_IS(called, 1);
    pshm_bus_remove();
    CHECK(is_current(SIG_DFL));
    return 0;
}

/* ---- a handler on top of ours ---- */

static struct sigaction below;

/* Like a library that calls the handler that it replaced. */
static void
call_below(int number, siginfo_t *info, void *context)
{
    called++;
    below.sa_sigaction(number, info, context);
}

static int
handler_on_top_may_call_ours(void *context)
{
    (void)context;
    install_above(SA_SIGINFO);
    struct sigaction action = {.sa_sigaction = call_below,
                               .sa_flags = SA_SIGINFO};
    CHECK(sigaction(SIGBUS, &action, &below) == 0);
    pshm_bus_remove();                  /* it remains below the other handler
                                         */
    install();
    access_lost_page();
    CHECK_IS(called, 2);
    pshm_bus_remove();
    CHECK(!is_current(handle));
    /* Our handler is the current one again. */
    install();
    called = 0;
    access_lost_page();
    CHECK_IS(called, 2);
    CHECK(sigaction(SIGBUS, &action, NULL) == 0);
    install();
    called = 0;
    access_lost_page();
    CHECK_IS(called, 2);
    repairs = true;
    access_lost_page();
    CHECK_IS(repaired, 1);
    return 0;
}

/* Only the last ones of very many actions are recorded. */
static int
many_actions_can_be_replaced(void *context)
{
    (void)context;
    for (unsigned i = 0; i < 16; i++) {
        install_above((i & 1 ? SA_RESTART : 0) | (i & 2 ? SA_NODEFER : 0)
                   | (i & 4 ? SA_ONSTACK : 0) | (i & 8 ? SA_SIGINFO : 0));
    }
    access_lost_page();
    CHECK_IS(called, 1);
    for (unsigned i = 0; i < 16; i++) {
        pshm_bus_remove();
    }
    CHECK(is_current((void (*)(int))(uintptr_t)handle_with_info)
          || is_current(handle));
    return 0;
}

/* The handler is called after its removal, as if another thread removed it
 * while the kernel called it. */
static int
call_after_removal(void *context)
{
    struct sigaction action, ours;
    siginfo_t info = {.si_code = BUS_OBJERR};
    install_above(SA_SIGINFO);
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
removed_handler_calls_the_current_action(void)
{
    CHECK_IS(child_run(call_after_removal, NULL), 0);
    CHECK_IS(child_run(call_after_removal, (void *)&lost), -SIGBUS);
}

/* ---- a signal that the thread sends to itself ---- */

static int
own_signal_is_postponed_in_a_guard(void *context)
{
    (void)context;
    install_above(0);
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
    /* A signal for an access that was repaired is not sent again. */
    in_a_guard = repairs = true;
    (void)raise(SIGBUS);
    access_lost_page();
    pshm_bus_send_postponed();
    CHECK(repaired == 1 && called == 2);
    return 0;
}

static int
signal_the_parent(void *context)
{
    pid_t parent = *(pid_t *)context;
    return syscall(SYS_tgkill, parent, parent, SIGBUS) < 0;
}

static int
signal_of_another_process_is_not_postponed(void *context)
{
    pid_t self = getpid();
    (void)context;
    install_above(0);
    in_a_guard = true;
    CHECK_IS(child_run(signal_the_parent, &self), 0);
    CHECK_IS(called, 1);
    return 0;
}

int
main(void)
{
    RUN_IN_CHILD(only_an_installed_handler_is_removed, 0);
    RUN_IN_CHILD(repaired_access_is_repeated, 0);
    RUN_IN_CHILD(other_accesses_go_to_the_previous_action, 0);
    RUN_IN_CHILD(resethand_action_is_called_once, -SIGBUS);
    RUN_IN_CHILD(resethand_action_becomes_the_default, 0);
    RUN(only_a_sent_signal_can_be_ignored);
    RUN_IN_CHILD(default_ends_the_process_after_a_sent_signal, -SIGBUS);
    RUN_IN_CHILD(default_ends_the_process_after_an_access, -SIGBUS);
    RUN_IN_CHILD(handler_on_top_may_call_ours, 0);
    RUN_IN_CHILD(many_actions_can_be_replaced, 0);
    RUN(removed_handler_calls_the_current_action);
    RUN_IN_CHILD(own_signal_is_postponed_in_a_guard, 0);
    RUN_IN_CHILD(signal_of_another_process_is_not_postponed, 0);
    return finish();
}
