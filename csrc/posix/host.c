#include "host.h"

#include <fcntl.h>
#include <unistd.h>

int
pshm_boot_id(char out[PSHM_BOOT_ID_SIZE])
{
    int fd = pshm_result(
        open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
    if (fd < 0) {
        return fd;
    }
    ssize_t n = pshm_result((int)read(fd, out, PSHM_BOOT_ID_SIZE - 1));
    (void)close(fd);
    if (n >= 0 && n != PSHM_BOOT_ID_SIZE - 1) {
        n = -EIO;
    }
    out[PSHM_BOOT_ID_SIZE - 1] = '\0';
    return n < 0 ? (int)n : 0;
}

pid_t
pshm_process_id(void)
{
    return getpid();
}
