/* The physical floor: what the kernel itself charges for one throwaway container.
 *
 *   floor LOWERDIR {root|single}
 *
 * For each line on standard input: clone a process into seven new namespaces (user, mount, pid,
 * net, ipc, uts, cgroup), write its id map, mount an overlay with a tmpfs upper over LOWERDIR and a
 * fresh /proc, pivot_root, execute /bin/true, reap it; then print the nanoseconds from before clone
 * to after waitpid. Nothing else is done: no /dev, no /sys, no limits, no seccomp, no output, no
 * client. Any failure ends the program with status 1 and the failing call on standard error.
 *
 * `root` writes an identity map over all ids (needs root); `single` maps only the caller to 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const unsigned long NAMESPACES = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET |
                                        CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;

static void check(int ok, const char *call) {
    if (!ok) {
        fprintf(stderr, "floor: %s: %s\n", call, strerror(errno));
        _exit(1);
    }
}

static void write_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd >= 0, path);
    check(write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
    close(fd);
}

static void write_map(pid_t child, int single) {
    char path[64], line[64];
    if (single) {
        snprintf(path, sizeof path, "/proc/%d/setgroups", child);
        write_file(path, "deny");
    }
    snprintf(path, sizeof path, "/proc/%d/uid_map", child);
    snprintf(line, sizeof line, single ? "0 %u 1" : "0 0 4294967295", geteuid());
    write_file(path, line);
    snprintf(path, sizeof path, "/proc/%d/gid_map", child);
    snprintf(line, sizeof line, single ? "0 %u 1" : "0 0 4294967295", getegid());
    write_file(path, line);
}

/* Runs in the child: pid 1 of the new namespaces, once its id map is there. */
static void enter_in_child(const char *lower) {
    char options[4096];
    char *argv[] = {"/bin/true", NULL}, *envp[] = {NULL};

    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "mount private /");
    check(mount("tmpfs", "/tmp", "tmpfs", 0, NULL) == 0, "mount tmpfs");
    check(mkdir("/tmp/u", 0755) == 0 && mkdir("/tmp/w", 0755) == 0 && mkdir("/tmp/r", 0755) == 0,
          "mkdir");
    /* LOWERDIR is the working directory, so it stays in reach below the tmpfs on /tmp. */
    snprintf(options, sizeof options, "userxattr,lowerdir=%s,upperdir=/tmp/u,workdir=/tmp/w", lower);
    check(mount("overlay", "/tmp/r", "overlay", 0, options) == 0, "mount overlay");
    check(mount("proc", "/tmp/r/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0,
          "mount proc");
    check(chdir("/tmp/r") == 0, "chdir");
    check(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
    check(umount2(".", MNT_DETACH) == 0, "umount2");
    execve(argv[0], argv, envp);
    check(0, "execve /bin/true");
}

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static long long launch(const char *lower, int single) {
    int gate[2], status;
    char byte;
    long long began = now();

    check(pipe2(gate, O_CLOEXEC) == 0, "pipe2");
    pid_t child = (pid_t)syscall(SYS_clone, NAMESPACES | SIGCHLD, NULL, NULL, NULL, NULL);
    check(child >= 0, "clone");
    if (child == 0) {
        check(read(gate[0], &byte, 1) == 1, "read gate");
        enter_in_child(lower);
    }
    write_map(child, single);
    check(write(gate[1], "g", 1) == 1, "write gate");
    check(waitpid(child, &status, 0) == child, "waitpid");
    check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "/bin/true");
    close(gate[0]);
    close(gate[1]);
    return now() - began;
}

int main(int argc, char **argv) {
    char line[16];
    if (argc != 3 || (strcmp(argv[2], "root") && strcmp(argv[2], "single"))) {
        fprintf(stderr, "usage: floor LOWERDIR {root|single}\n");
        return 2;
    }
    check(chdir(argv[1]) == 0, argv[1]);
    while (fgets(line, sizeof line, stdin)) {
        printf("%lld\n", launch(".", !strcmp(argv[2], "single")));
        fflush(stdout);
    }
    return 0;
}
