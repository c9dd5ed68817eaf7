/*
 * Preloaded into the processes of a region, PostgreSQL and Valkey: what a disk and a clock may do, when it is asked for.
 *
 * What is asked for stands in a small file that each process maps when it starts (CHAOS_SHIM names it), so that it can be asked
 * for, and taken back, while they run; children of a process share its map. Counters say what has really been done.
 *
 *   clock_ns    is added to the time of day (CLOCK_REALTIME). Clocks that only measure stay: waits, time-outs, deadlines of Python.
 *   eio         so many times, fsync and fdatasync of a file fail with EIO
 *   stalled     fsync and fdatasync of a file return no earlier than it is taken back, or the process is killed
 *   full        what makes a file longer fails with ENOSPC; what lies in blocks that a file has already is written
 *
 * A file is a regular one outside /dev/shm. Statically linked programs (nats-server) know nothing of this.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control { /* as chaos/shim.py packs it */
    volatile int64_t clock_ns, eio, stalled, full;
    int64_t eio_given, waiting, full_given, clock_asked;
};

static struct control none;
static struct control *asked = &none;

static int (*real_fsync)(int), (*real_fdatasync)(int);
static ssize_t (*real_write)(int, const void *, size_t), (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int), (*real_pwritev)(int, const struct iovec *, int, off_t);
static int (*real_fallocate)(int, off_t, off_t), (*real_ftruncate)(int, off_t);

__attribute__((constructor)) static void begin(void) {
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev");
    real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    const char *path = getenv("CHAOS_SHIM");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *there = file < 0 ? MAP_FAILED : mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file >= 0) close(file);
    if (there == MAP_FAILED) {
        static const char told[] = "chaos: the shim cannot map CHAOS_SHIM\n";
        syscall(SYS_write, 2, told, sizeof told - 1);
        _exit(127);
    }
    asked = there;
}

static void count(int64_t *counter, int64_t by) { __sync_fetch_and_add(counter, by); }

static int is_on_disk(int file, struct stat *found) {
    char name[32], path[16];
    if (fstat(file, found) != 0 || !S_ISREG(found->st_mode)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t length = readlink(name, path, sizeof path);
    return length < 9 || strncmp(path, "/dev/shm/", 9) != 0;
}

/* Clocks */

static int64_t shift(void) {
    if (asked->clock_ns) count(&asked->clock_asked, 1);
    return asked->clock_ns;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) && asked->clock_ns) {
        int64_t ns = now->tv_sec * 1000000000LL + now->tv_nsec + shift();
        now->tv_sec = ns / 1000000000LL;
        now->tv_nsec = ns % 1000000000LL;
    }
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *kept) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (kept) *kept = found.tv_sec;
    return found.tv_sec;
}

/* A disk that cannot flush */

static int refused_flush(int file) {
    struct stat found;
    if (asked->eio <= 0 && !asked->stalled) return 0;
    if (!is_on_disk(file, &found)) return 0;
    if (asked->stalled) {
        struct timespec pause = {0, 2000000};
        count(&asked->waiting, 1);
        while (asked->stalled) nanosleep(&pause, NULL);
        count(&asked->waiting, -1);
    }
    int64_t left = asked->eio;
    while (left > 0 && !__sync_bool_compare_and_swap(&asked->eio, left, left - 1)) left = asked->eio;
    if (left <= 0) return 0;
    count(&asked->eio_given, 1);
    errno = EIO;
    return 1;
}

int fsync(int file) { return refused_flush(file) ? -1 : real_fsync(file); }
int fdatasync(int file) { return refused_flush(file) ? -1 : real_fdatasync(file); }

/* A disk that is full. `from` < 0: at the file's own place. */

static int is_full(int file, off_t from, size_t bytes) {
    struct stat found;
    if (!asked->full || !is_on_disk(file, &found)) return 0;
    if (from < 0) from = fcntl(file, F_GETFL) & O_APPEND ? found.st_size : lseek(file, 0, SEEK_CUR);
    if (from + (off_t)bytes <= found.st_size) return 0;
    count(&asked->full_given, 1);
    return 1;
}

static size_t bytes_of(const struct iovec *parts, int number) {
    size_t sum = 0;
    for (int i = 0; i < number; i++) sum += parts[i].iov_len;
    return sum;
}

static ssize_t no_space(void) {
    errno = ENOSPC;
    return -1;
}

ssize_t write(int file, const void *data, size_t bytes) {
    if (!real_write) return syscall(SYS_write, file, data, bytes);
    return is_full(file, -1, bytes) ? no_space() : real_write(file, data, bytes);
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    return is_full(file, -1, bytes_of(parts, number)) ? no_space() : real_writev(file, parts, number);
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t from) {
    return is_full(file, from, bytes) ? no_space() : real_pwrite(file, data, bytes, from);
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off_t from) { return pwrite(file, data, bytes, from); }

ssize_t pwritev(int file, const struct iovec *parts, int number, off_t from) {
    return is_full(file, from, bytes_of(parts, number)) ? no_space() : real_pwritev(file, parts, number, from);
}

ssize_t pwritev64(int file, const struct iovec *parts, int number, off_t from) { return pwritev(file, parts, number, from); }

int posix_fallocate(int file, off_t from, off_t bytes) {
    return is_full(file, from, (size_t)bytes) ? ENOSPC : real_fallocate(file, from, bytes);
}

int posix_fallocate64(int file, off_t from, off_t bytes) { return posix_fallocate(file, from, bytes); }
