/* Another library's handler of SIGBUS, for tests/api/test_guard.py. */
#include <signal.h>
#include <unistd.h>

int calls;
static struct sigaction before;

static void
on_bus(int number, siginfo_t *info, void *context)
{
    calls++;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
        return;
    }
    static const char text[] = "their handler\n";
    (void)!write(1, text, sizeof(text) - 1);
    _exit(42);
}

int
install(int flags)
{
    struct sigaction action = {.sa_sigaction = on_bus,
                               .sa_flags = SA_SIGINFO | flags};
    return sigaction(SIGBUS, &action, &before);
}

/* Is its handler the action now? */
int
is_installed(void)
{
    struct sigaction action;
    return sigaction(SIGBUS, NULL, &action) == 0
           && action.sa_flags & SA_SIGINFO && action.sa_sigaction == on_bus;
}
