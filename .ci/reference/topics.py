"""The names that each page describes, and the order of the guides."""

# The pages of posixshm itself: page, title, first paragraph, names. Other public names go to the
# last page; each public submodule has its own page.
TOPICS = [
    (
        "objects",
        "Objects: SharedMemory, MemoryMap, View",
        "The classes that create, open, map and view shared memory. The guides show how to use "
        "them; this page describes each method and attribute.",
        ["SharedMemory", "MemoryMap", "View"],
    ),
    (
        "synchronization",
        "Synchronization: Lock, Event, Semaphore and others",
        "The classes that synchronize processes, modelled on those of the threading module. Each "
        "can have a name or lie at an offset of shared memory.",
        [
            "Lock",
            "RLock",
            "RWLock",
            "Condition",
            "Event",
            "Barrier",
            "Semaphore",
            "Atomic",
            "OwnerDiedError",
        ],
    ),
    (
        "functions",
        "Functions and constants",
        "The functions that take a name or a descriptor, what they return, guard(), and the "
        "constants.",
        [
            "shm_open",
            "shm_unlink",
            "sem_unlink",
            "exists",
            "listdir",
            "holders",
            "Holders",
            "Holder",
            "reclaim",
            "Reclaimed",
            "guard",
            "BusError",
        ],
    ),
]
# The guides in the order in which a reader needs them; other guides follow.
GUIDES = [
    "questions",
    "arrays",
    "synchronization",
    "process-death",
    "memory-order",
    "pickling",
    "restarting",
    "containers",
    "c-and-cpp",
    "security",
    "access-control-lists",
    "bus-errors",
    "performance",
    "limits",
    "command",
    "migrating",
]
CONSTANTS = [
    ("PROT_", "For `protect()`: mprotect(2)."),
    ("MADV_", "For `advise()`: madvise(2)."),
    ("MS_", "For `sync()`: msync(2)."),
    ("F_SEAL_", "For `add_seals()` and `require_seals=`: fcntl(2)."),
    ("", "Sizes and limits."),
]
