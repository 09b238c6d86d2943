"""Which system calls a container may make: Docker's default allowlist, as a BPF program.

Everything outside the list fails with EPERM, a call that this list is too old to know with ENOSYS
(so that C libraries fall back), a foreign ABI ends the process. The list follows
github.com/moby/profiles `seccomp/default.json`. A capability opens the calls that need it.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

from sandboxd.linux import namespaces, seccomp
from sandboxd.linux.seccomp import ANY_BIT, EQUAL, NEXT, Program
from sandboxd.linux.syscall_numbers import NUMBERS

_FILES: Final = """
access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
fadvise64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr
flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents
getdents64 getxattr getxattrat lchown lgetxattr link linkat listxattr listxattrat llistxattr
lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open
openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink
readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir sendfile setxattr
setxattrat splice stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask
unlink unlinkat utime utimensat utimes vmsplice write writev listmount statmount
"""
_WAITING: Final = """
epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1
inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit poll ppoll
pselect6 select signalfd signalfd4 timerfd_create timerfd_gettime timerfd_settime
"""
_MEMORY: Final = """
brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2
mlockall mmap mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
pkey_mprotect remap_file_pages
"""
_PROCESSES: Final = """
alarm arch_prctl capget capset execve execveat exit exit_group fork get_robust_list get_thread_area
getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid
getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self modify_ldt pause pidfd_open pidfd_send_signal prctl
prlimit64 process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall rseq
rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr
sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area
set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid setresgid
setresuid setreuid setrlimit setsid setuid sigaltstack tgkill tkill uretprobe vfork wait4 waitid
"""
_IPC: Final = """
accept accept4 bind connect futex futex_requeue futex_wait futex_waitv futex_wake getpeername
getsockname getsockopt listen mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink
msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl semget semop semtimedop sendmmsg
sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socketpair
"""
_CLOCKS_AND_SYSTEM: Final = """
adjtimex clock_adjtime clock_getres clock_gettime clock_nanosleep getitimer getrandom gettimeofday
nanosleep sysinfo time timer_create timer_delete timer_getoverrun timer_gettime timer_settime times
uname
"""
ALLOWED: Final = frozenset(
    (_FILES + _WAITING + _MEMORY + _PROCESSES + _IPC + _CLOCKS_AND_SYSTEM).split()
)
"""Calls that every container may make with any argument."""

_ADMINISTRATION: Final = """
bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr
perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare
"""
GATED: Final[Mapping[str, tuple[str, ...]]] = {
    "SYS_ADMIN": tuple(_ADMINISTRATION.split()),
    "BPF": ("bpf",),
    "DAC_READ_SEARCH": ("open_by_handle_at",),
    "PERFMON": ("perf_event_open",),
    "SYSLOG": ("syslog",),
    "SYS_BOOT": ("reboot",),
    "SYS_CHROOT": ("chroot",),
    "SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "SYS_PACCT": ("acct",),
    "SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
    "SYS_RAWIO": ("ioperm", "iopl"),
    "SYS_TIME": ("clock_settime", "settimeofday"),
    "SYS_TTY_CONFIG": ("vhangup",),
}
"""Calls that a capability opens."""

NAMESPACE_FLAGS: Final = namespaces.CONTAINER
"""Bits of clone(2)'s flags that no container may set; CLONE_NEWTIME lies outside clone's reach."""

REFUSED_IOCTLS: Final = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}
"""Both push input into a terminal (CVE-2017-5226, CVE-2019-10063): ioctl_tty(2)."""

PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, a 32-bit machine's name, uname of 2.6, both, and the query: personality(2)."""

_FAMILY_COUNT: Final = 46
_REFUSED_FAMILIES: Final = {
    0: "AF_UNSPEC",
    12: "AF_DECnet",
    19: "AF_ECONET",
    20: "AF_ATMSVC",
    23: "AF_IRDA",
    24: "AF_WANPIPE",
    34: "AF_ISDN",
    37: "AF_CAIF",
    socket.AF_ALG: "AF_ALG: the kernel's crypto interface",
    socket.AF_VSOCK: "AF_VSOCK: reaches the hypervisor from any network namespace",
}
"""Address families (address_families(7)) that Docker leaves out as well: gone, or dangerous."""

_UNKNOWN: Final = "enosys"


OWNERSHIP: Final = ("chown", "fchown", "fchownat", "lchown")
"""What pretends to succeed under a single-id map, where no second owner exists: chown(2). The idea
is Charliecloud's (its --seccomp): package managers give files to users and do not look again."""


@lru_cache(maxsize=64)
def build_filter(
    capabilities: frozenset[str],
    machine: str = os.uname().machine,
    *,
    fake_ownership: bool = False,
) -> bytes:
    """The BPF program for a process that holds `capabilities` (names without CAP_).

    With `fake_ownership` the calls of OWNERSHIP do nothing and return 0. Raises OSError(ENOSYS)
    for a machine that is neither x86_64 nor aarch64.
    """
    if machine not in NUMBERS:
        raise OSError(errno.ENOSYS, f"seccomp: no table of system calls for {machine}")
    program = Program()
    program.load(seccomp.ARCH_OFFSET)
    program.branch(EQUAL, seccomp.AUDIT_ARCH[machine], NEXT, "kill")
    program.load(seccomp.NUMBER_OFFSET)
    verdicts = _verdicts(capabilities)
    if fake_ownership:
        verdicts |= dict.fromkeys(OWNERSHIP, "pretend")
    program.search(_ranges(verdicts, machine))
    _add_argument_tests(program)
    _add_verdicts(program)
    return program.assemble()


def _verdicts(capabilities: frozenset[str]) -> dict[str, str]:
    """Name of a call to the label that decides it; what is missing gets `eperm`."""
    verdicts = dict.fromkeys(ALLOWED, "allow")
    verdicts |= {name: name for name in ("clone", "ioctl", "personality", "socket")}
    # glibc falls back from clone3 to clone, whose flags a filter can see, on ENOSYS alone.
    verdicts["clone3"] = "enosys"
    for capability in capabilities:
        verdicts |= dict.fromkeys(GATED.get(capability, ()), "allow")
    return verdicts


def _ranges(verdicts: dict[str, str], machine: str) -> list[tuple[int, str]]:
    """(first number, label) for runs of numbers with one verdict, over all 32-bit numbers.

    x32 calls (x86_64 with bit 30 set) lie beyond the last known number: unknown.
    """
    by_number = {number: verdicts.get(name, "eperm") for name, number in NUMBERS[machine].items()}
    beyond = max(by_number) + 1
    labels = (by_number.get(number, _UNKNOWN) for number in range(beyond))
    return _runs([*labels, _UNKNOWN])


def _runs(labels: Iterable[str]) -> list[tuple[int, str]]:
    runs: list[tuple[int, str]] = []
    for value, label in enumerate(labels):
        if not runs or runs[-1][1] != label:
            runs.append((value, label))
    return runs


def _add_argument_tests(program: Program) -> None:
    """The calls whose arguments decide. The kernel reads all four as 32-bit values."""
    program.mark("clone")
    program.load(seccomp.low_word(0))
    program.branch(ANY_BIT, NAMESPACE_FLAGS, "eperm", "allow")
    program.mark("ioctl")
    program.load(seccomp.low_word(1))
    program.one_of([*REFUSED_IOCTLS.values()], "eperm", "allow")
    program.mark("personality")
    program.load(seccomp.low_word(0))
    program.one_of(PERSONALITIES, "allow", "eperm")
    program.mark("socket")
    program.load(seccomp.low_word(0))
    families = range(_FAMILY_COUNT)
    labels = ("eperm" if family in _REFUSED_FAMILIES else "allow" for family in families)
    program.search(_runs([*labels, "eperm"]))


def _add_verdicts(program: Program) -> None:
    for label, action in (
        ("allow", seccomp.RET_ALLOW),
        ("eperm", seccomp.ret_errno(errno.EPERM)),
        ("enosys", seccomp.ret_errno(errno.ENOSYS)),
        ("pretend", seccomp.ret_errno(0)),
        ("kill", seccomp.RET_KILL_PROCESS),
    ):
        program.mark(label)
        program.ret(action)
