"""Makes it impossible for this process to open a device, so that it can open any name without harm.

To open some devices does something: a watchdog starts counting, a tape rewinds. A container that may make device nodes
could put one in the place of a file just before that file is opened. In a mount namespace of its own, with `nodev` set
on all mounts, this process gets an error instead.
"""

from __future__ import annotations

import ctypes
import os

_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | (1 << 18)
_MOUNT_SETATTR = 442  # the same number on every architecture but alpha
_AT_RECURSIVE = 0x8000
_NODEV = 4


class _Attributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def close_devices() -> bool:
    """Forbid this process to open devices, for good; return whether that worked. It takes root and Linux 5.12.

    See mount_setattr(2), https://man7.org/linux/man-pages/man2/mount_setattr.2.html.
    """
    if os.geteuid() != 0 or os.uname().machine == "alpha":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = _Attributes(attr_set=_NODEV)
    return bool(
        libc.unshare(_CLONE_NEWNS) == 0
        # Else the change would spread to the mounts of the whole machine.
        and libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC_PRIVATE), None) == 0
        and libc.syscall(_MOUNT_SETATTR, -1, b"/", _AT_RECURSIVE, ctypes.byref(wanted), ctypes.sizeof(wanted)) == 0
    )
