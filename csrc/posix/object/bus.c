#include "posix/object/bus.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "posix/sync/thread.h"

/* The replaced actions, the most recent one last. There are several if another
 * program installed a handler on top of this handler, and this handler was
 * installed again on top of that. */
enum { MOST = 8 };
static struct sigaction previous[MOST];
static atomic_uint previous_count;

static const struct pshm_bus_calls *_Atomic current_calls;

/* The number of previous actions that are running in this thread. */
static PSHM_THREAD_LOCAL unsigned chained;
static PSHM_THREAD_LOCAL bool postponed;

static void
set_default(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    (void)sigaction(SIGBUS, &action, NULL);
}

/* SIG_DFL. After a faulting access, the kernel repeats the access when the
 * handler returns, and then ends the process; any other SIGBUS must be sent
 * again. */
static void
end_process(const siginfo_t *info)
{
    set_default();
    switch (info->si_code) {
    case BUS_ADRALN:
    case BUS_ADRERR:
    case BUS_OBJERR:
    case BUS_MCEERR_AR:
        break;
    default:
        (void)raise(SIGBUS);
    }
}

/* The kernel blocks SIGBUS while the handler runs. */
static void
call_previous(const struct sigaction *action, int number, siginfo_t *info,
              void *context)
{
    sigset_t mask;
    (void)pthread_sigmask(SIG_BLOCK, &action->sa_mask, &mask);
    if (action->sa_flags & SA_NODEFER) {
        sigset_t bus;
        (void)sigemptyset(&bus);
        (void)sigaddset(&bus, SIGBUS);
        (void)pthread_sigmask(SIG_UNBLOCK, &bus, NULL);
    }
    chained++;
    if (action->sa_flags & SA_SIGINFO) {
        action->sa_sigaction(number, info, context);
    }
    else {
        action->sa_handler(number);
    }
    chained--;
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

/* If the previous handler calls this handler, continue with the action before
 * it. If another thread has removed this handler since the kernel called it,
 * use the current action. */
static void
chain(int number, siginfo_t *info, void *context)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    unsigned count = atomic_load(&previous_count);
    if (chained < count) {
        struct sigaction *found = &previous[count - 1 - chained];
        action = *found;
        if (action.sa_flags & (int)SA_RESETHAND) {
            *found = (struct sigaction){.sa_handler = SIG_DFL};
        }
    }
    else if (chained == 0) {
        (void)sigaction(SIGBUS, NULL, &action);
    }
    if (action.sa_handler == SIG_IGN && info->si_code <= 0) {
        return;
    }
    if (action.sa_handler == SIG_DFL || action.sa_handler == SIG_IGN) {
        end_process(info);
    }
    else {
        call_previous(&action, number, info, context);
    }
}

static void
on_bus_error(int number, siginfo_t *info, void *context)
{
    int saved = errno;
    const struct pshm_bus_calls *calls = atomic_load(&current_calls);
    if (info->si_code == BUS_ADRERR && calls->repair(info->si_addr)) {
        postponed = false;
    }
    else if (chained == 0 && info->si_code == SI_TKILL
             && info->si_pid == getpid() && calls->guarded()) {
        postponed = true;
    }
    else {
        chain(number, info, context);
    }
    errno = saved;
}

static bool
is_ours(const struct sigaction *action)
{
    return action->sa_flags & SA_SIGINFO
           && action->sa_sigaction == on_bus_error;
}

/* The actions above one that is the current one again were removed. */
static void
push(const struct sigaction *action)
{
    unsigned count = atomic_load(&previous_count), at = 0;
    while (at < count && (previous[at].sa_handler != action->sa_handler
                          || previous[at].sa_flags != action->sa_flags)) {
        at++;
    }
    if (at == MOST) {
        memmove(previous, previous + 1, (MOST - 1) * sizeof(*previous));
        at--;
    }
    previous[at] = *action;
    atomic_store(&previous_count, at + 1);
}

int
pshm_bus_install(const struct pshm_bus_calls *calls)
{
    struct sigaction action;
    int rc = pshm_result(sigaction(SIGBUS, NULL, &action));
    if (rc < 0 || is_ours(&action)) {
        return rc;
    }
    atomic_store(&current_calls, calls);
    push(&action);
    struct sigaction ours = {
        .sa_sigaction = on_bus_error,
        .sa_flags = SA_SIGINFO | SA_ONSTACK | (action.sa_flags & SA_RESTART),
    };
    return pshm_result(sigaction(SIGBUS, &ours, NULL));
}

void
pshm_bus_remove(void)
{
    struct sigaction action;
    unsigned count = atomic_load(&previous_count);
    if (count > 0 && sigaction(SIGBUS, NULL, &action) == 0
        && is_ours(&action)
        && sigaction(SIGBUS, &previous[count - 1], NULL) == 0) {
        atomic_store(&previous_count, count - 1);
    }
}

void
pshm_bus_send_postponed(void)
{
    if (postponed) {
        postponed = false;
        (void)raise(SIGBUS);
    }
}
