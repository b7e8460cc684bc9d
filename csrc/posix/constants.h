/* Constants of the kernel that the headers of an older C library lack. */
#ifndef PSHM_CONSTANTS_H
#define PSHM_CONSTANTS_H

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#ifndef MADV_COLD                       /* Linux 5.4 */
#define MADV_COLD 20
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ              /* Linux 5.14 */
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE                   /* Linux 6.1 */
#define MADV_COLLAPSE 25
#endif
#ifndef F_SEAL_FUTURE_WRITE             /* Linux 5.1 */
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef F_SEAL_EXEC                     /* Linux 6.3 */
#define F_SEAL_EXEC 0x0020
#endif
#ifndef MFD_NOEXEC_SEAL                 /* Linux 6.3 */
#define MFD_NOEXEC_SEAL 0x0008U
#endif
#ifndef RENAME_NOREPLACE                /* <stdio.h> of some */
#define RENAME_NOREPLACE 1
#endif

#endif
