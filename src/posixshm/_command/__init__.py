"""The `posixshm` command: a demonstration, and tools for what lies in /dev/shm.

It needs the standard library only. If `rich` is installed, a terminal gets colours and better
progress bars.
"""
