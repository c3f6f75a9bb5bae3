"""A small disk that can be made full and freed again: a tmpfs that only this process and its children see.

It needs a mount namespace: root's, or one in a user namespace of its own. It never touches a disk of the machine.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from storage.errors import AmberError

CLONE_NEWNS, CLONE_NEWUSER = 0x0002_0000, 0x1000_0000
MS_REMOUNT, MS_REC, MS_PRIVATE = 0x20, 0x4000, 0x4_0000
MNT_DETACH = 2
"""Of Linux' sched.h, mount.h: Python has them from 3.12 on only, or not at all."""

LEFT_BYTES = 64 << 10
"""What stays free on a full disk: a transaction begins, and then finds no room."""


class NoDisk(AmberError):
    """A disk of our own is not to be had on this machine; the text says what it would need."""


class Disk:
    """A disk at `folder`, for the time of the block; with the process it goes in any case. Linux only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._libc = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        self._have_mounts_of_our_own()
        self._mount("tmpfs", self.folder, 0, "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._libc.umount2(os.fsencode(self.folder), MNT_DETACH)

    def fill(self) -> None:
        """From now on there is no room, as if another program had taken it."""
        # The size is set to what is in use, which costs no memory, as a file that fills it would. What is in use may
        # have grown meanwhile: then the system refuses.
        for spare in (1, 16, 256):
            used = os.statvfs(self.folder)
            size = (used.f_blocks - used.f_bfree) * used.f_frsize + LEFT_BYTES * spare
            try:
                return self._resize(f"{size}")
            except NoDisk:
                if spare == 256:
                    raise
        return None

    def free(self) -> None:
        """There is room again."""
        self._resize("50%")

    def _have_mounts_of_our_own(self) -> None:
        """Part from the machine's mounts, so that nobody else sees ours, and none outlives us."""
        user, group = os.getuid(), os.getgid()
        if not hasattr(self._libc, "unshare"):
            raise NoDisk("a full disk needs Linux: leave disk out of --kill")
        self._do(self._libc.unshare(CLONE_NEWNS if user == 0 else CLONE_NEWNS | CLONE_NEWUSER))
        if user != 0:
            Path("/proc/self/setgroups").write_text("deny", "ascii")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1", "ascii")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1", "ascii")
        self._mount("none", Path("/"), MS_REC | MS_PRIVATE, "")

    def _resize(self, size: str) -> None:
        self._mount("tmpfs", self.folder, MS_REMOUNT, f"size={size}")

    def _mount(self, kind: str, place: Path, flags: int, data: str) -> None:
        self._do(
            self._libc.mount(
                kind.encode(), os.fsencode(place), kind.encode(), ctypes.c_ulong(flags), data.encode() or None
            )
        )

    def _do(self, failed: int) -> None:
        if failed:
            raise NoDisk(
                f"a full disk needs a mount of its own, which this machine does not allow us "
                f"({os.strerror(ctypes.get_errno()).lower()}): run as root, or leave disk out of --kill"
            )
