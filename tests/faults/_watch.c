/* What a process changes in one folder: each operation is numbered, and can be logged, can fail, or can be the last.
 *
 * A filter of the kernel (seccomp) hands the system calls over that change files, whichever library makes them. Preloaded
 * functions would not do: Rust's libraries call the kernel directly. See _process.py. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

enum kind {
    CREATE = 1, WRITE = 2, RENAME = 4, LINK = 8, SYMLINK = 16, UNLINK = 32, MKDIR = 64, RMDIR = 128,
    TRUNCATE = 256, SYNC = 512, CHMOD = 1024, MAP = 2048,
};
enum action { NOTHING, KILL, FAIL, VANISH };
enum decision { GO_ON = 0, END = 1 }; /* or a negative error number */

struct record { /* followed by the two texts, of which the second is the data of a write */
    int32_t kind, flags;
    int64_t number, inode, offset;
    int32_t first, second;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], vanishing[PATH_MAX];
static size_t root_size;
static int log_file = -1, kinds, action, error_number;
static long number, first_number, last_number;
static _Thread_local long mine; /* number of this thread's last operation */

/* The only place from which the calls pass the filter. */
long faults_call(long name, ...);
extern char faults_called[];
#if defined(__x86_64__)
__asm__(".hidden faults_call\n.hidden faults_called\n.globl faults_call\nfaults_call:\n"
        "mov %rdi,%rax\nmov %rsi,%rdi\nmov %rdx,%rsi\nmov %rcx,%rdx\nmov %r8,%r10\nmov %r9,%r8\nmov 8(%rsp),%r9\n"
        "syscall\n.globl faults_called\nfaults_called:\nret\n");
#elif defined(__aarch64__)
__asm__(".hidden faults_call\n.hidden faults_called\n.globl faults_call\nfaults_call:\n"
        "mov x8,x0\nmov x0,x1\nmov x1,x2\nmov x2,x3\nmov x3,x4\nmov x4,x5\nmov x5,x6\n"
        "svc #0\n.globl faults_called\nfaults_called:\nret\n");
#else
#error "only for x86-64 and AArch64"
#endif
#define CALL(name, ...) faults_call(SYS_##name, __VA_ARGS__)

/* Write the absolute path of a call's folder and path to found, and return whether it is in the watched folder. */
static int path_of(long folder, const char *path, char *found) {
    if (path[0] == '/') {
        snprintf(found, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX], link[64];
        if ((int)folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", (int)folder);
            ssize_t size = readlink(link, base, sizeof base - 1);
            if (size < 0) return 0;
            base[size] = 0;
        }
        if (snprintf(found, PATH_MAX, *path ? "%s/%s" : "%s", base, path) >= PATH_MAX) return 0;
    }
    return !strncmp(found, root, root_size) && (!found[root_size] || found[root_size] == '/');
}

static enum decision begin(enum kind kind) {
    pthread_mutex_lock(&lock);
    mine = number++;
    pthread_mutex_unlock(&lock);
    if (mine < first_number || mine > last_number || !(kind & kinds)) return GO_ON;
    if (action == VANISH) {
        char moved[PATH_MAX + 8];
        snprintf(moved, sizeof moved, "%s.gone", vanishing);
        CALL(renameat2, AT_FDCWD, vanishing, AT_FDCWD, moved, 0);
        action = NOTHING;
    }
    return action == FAIL ? -error_number : action == KILL ? END : GO_ON;
}

static void end_process(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static long decided(enum kind kind) {
    int what = begin(kind);
    if (what == END) end_process();
    return what;
}

static void put(const void *data, size_t size) {
    for (const char *left = data; size;) {
        long done = CALL(write, log_file, left, size);
        if (done < 0) abort();
        left += done, size -= done;
    }
}

static void note(enum kind kind, int flags, int64_t inode, int64_t offset, const char *path, const void *text, size_t size) {
    if (log_file < 0) return;
    struct record record = {kind, flags, mine, inode, offset, strlen(path), size};
    pthread_mutex_lock(&lock);
    put(&record, sizeof record);
    put(path, record.first);
    put(text, size);
    pthread_mutex_unlock(&lock);
}

static int64_t inode_of(int file) {
    struct stat status;
    return fstat(file, &status) ? -1 : (int64_t)status.st_ino;
}

static int64_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) ? -1 : (int64_t)status.st_ino;
}

static long open_at(long folder, const char *path, long flags, long mode) {
    char full[PATH_MAX];
    struct stat status;
    int writes = flags & (O_WRONLY | O_RDWR), empties = flags & O_TRUNC;
    if (!(writes | empties | (flags & O_CREAT)) || !path_of(folder, path, full)) goto unseen;
    if (!empties && !lstat(full, &status)) {
        /* Nothing changes yet, but a disk that is read-only refuses it. */
        if (action == FAIL && error_number == EROFS && number >= first_number && (flags & O_ACCMODE)) return -EROFS;
        goto unseen;
    }
    long what = decided(CREATE);
    if (what) return what;
    long file = CALL(openat, folder, path, flags, mode);
    if (file >= 0) note(CREATE, !!empties, inode_of(file), 0, full, "", 0);
    return file;
unseen:
    return CALL(openat, folder, path, flags, mode);
}

static long write_at(long file, const char *data, size_t size, long place) {
    char full[PATH_MAX];
    struct stat status;
    long name = place < 0 ? SYS_write : SYS_pwrite64;
    if (!size || !path_of(file, "", full) || fstat(file, &status) || !S_ISREG(status.st_mode))
        return faults_call(name, file, data, size, place);
    off_t offset = place >= 0 ? place : fcntl(file, F_GETFL) & O_APPEND ? status.st_size : lseek(file, 0, SEEK_CUR);
    int what = begin(WRITE);
    int full_disk = (what == -ENOSPC || what == -EDQUOT) && mine == first_number;
    if (what < 0 && !full_disk) return what;
    if (what && size > 1) size /= 2; /* a disk takes what it can before it is full */
    long done = faults_call(name, file, data, size, place);
    if (what == END) end_process();
    if (done > 0) note(WRITE, 0, status.st_ino, offset, full, data, done);
    return done;
}

static long write_all(long file, const struct iovec *pieces, long count) {
    long total = 0;
    for (long i = 0; i < count; i++) {
        long done = write_at(file, pieces[i].iov_base, pieces[i].iov_len, -1);
        if (done < 0) return total ? total : done;
        total += done;
        if ((size_t)done < pieces[i].iov_len) break;
    }
    return total;
}

static long rename_at(long from, const char *path, long to, const char *other, long flags) {
    char full[PATH_MAX], second[PATH_MAX];
    int seen = path_of(to, other, second) && path_of(from, path, full);
    long what = seen ? decided(RENAME) : GO_ON;
    if (what) return what;
    long done = CALL(renameat2, from, path, to, other, flags);
    if (seen && !done) note(RENAME, 0, inode_at(second), 0, full, second, strlen(second));
    return done;
}

static long link_at(long from, const char *path, long to, const char *other, long flags) {
    char full[PATH_MAX], second[PATH_MAX];
    int seen = path_of(to, other, second) && path_of(from, path, full);
    long what = seen ? decided(LINK) : GO_ON;
    if (what) return what;
    long done = CALL(linkat, from, path, to, other, flags);
    if (seen && !done) note(LINK, 0, inode_at(second), 0, full, second, strlen(second));
    return done;
}

static long symlink_at(const char *target, long folder, const char *path) {
    char full[PATH_MAX];
    int seen = path_of(folder, path, full);
    long what = seen ? decided(SYMLINK) : GO_ON;
    if (what) return what;
    long done = CALL(symlinkat, target, folder, path);
    if (seen && !done) note(SYMLINK, 0, inode_at(full), 0, full, target, strlen(target));
    return done;
}

static long unlink_at(long folder, const char *path, long flags) {
    char full[PATH_MAX];
    enum kind kind = flags & AT_REMOVEDIR ? RMDIR : UNLINK;
    int seen = path_of(folder, path, full);
    long what = seen ? decided(kind) : GO_ON;
    if (what) return what;
    long done = CALL(unlinkat, folder, path, flags);
    if (seen && !done) note(kind, 0, 0, 0, full, "", 0);
    return done;
}

static long mkdir_at(long folder, const char *path, long mode) {
    char full[PATH_MAX];
    struct stat status;
    int seen = path_of(folder, path, full) && lstat(full, &status);
    long what = seen ? decided(MKDIR) : GO_ON;
    if (what) return what;
    long done = CALL(mkdirat, folder, path, mode);
    if (seen && !done) note(MKDIR, 0, inode_at(full), 0, full, "", 0);
    return done;
}

static long chmod_at(long folder, const char *path, long mode) {
    char full[PATH_MAX];
    int seen = path_of(folder, path, full);
    long what = seen ? decided(CHMOD) : GO_ON;
    if (what) return what;
    long done = *path ? CALL(fchmodat, folder, path, mode, 0) : CALL(fchmod, folder, mode);
    if (seen && !done) note(CHMOD, 0, 0, 0, full, "", 0);
    return done;
}

static long truncate_file(long file, const char *path, long size) {
    char full[PATH_MAX];
    int seen = path_of(path ? AT_FDCWD : file, path ? path : "", full);
    long what = seen ? decided(TRUNCATE) : GO_ON;
    if (what) return what;
    long done = path ? CALL(truncate, path, size) : CALL(ftruncate, file, size);
    if (seen && !done) note(TRUNCATE, 0, inode_at(full), size, full, "", 0);
    return done;
}

/* Nothing in the watched folder has to outlive the machine, so that waiting for its disk is left out. */
static long sync_file(long name, long file) {
    char full[PATH_MAX];
    if (!path_of(file, "", full)) return faults_call(name, file);
    long what = decided(SYNC);
    if (!what) note(SYNC, 0, inode_of(file), 0, full, "", 0);
    return what;
}

/* What is written through memory is not seen: the log says so. */
static long map_file(long where, long size, long protection, long flags, long file, long offset) {
    char full[PATH_MAX];
    if ((int)file >= 0 && flags & MAP_SHARED && protection & PROT_WRITE && path_of(file, "", full))
        note(MAP, 0, inode_of(file), offset, full, "", 0);
    return CALL(mmap, where, size, protection, flags, file, offset);
}

static long handled(long name, long a, long b, long c, long d, long e, long f) {
#define TEXT(value) ((const char *)(value))
    switch (name) {
    case SYS_openat: return open_at(a, TEXT(b), c, d);
    case SYS_write: return write_at(a, TEXT(b), c, -1);
    case SYS_pwrite64: return write_at(a, TEXT(b), c, d);
    case SYS_writev: return write_all(a, (const struct iovec *)b, c);
    case SYS_renameat2: return rename_at(a, TEXT(b), c, TEXT(d), e);
    case SYS_linkat: return link_at(a, TEXT(b), c, TEXT(d), e);
    case SYS_symlinkat: return symlink_at(TEXT(a), b, TEXT(c));
    case SYS_unlinkat: return unlink_at(a, TEXT(b), c);
    case SYS_mkdirat: return mkdir_at(a, TEXT(b), c);
    case SYS_truncate: return truncate_file(-1, TEXT(a), b);
    case SYS_ftruncate: return truncate_file(a, NULL, b);
    case SYS_fchmod: return chmod_at(a, "", b);
    case SYS_fchmodat: return chmod_at(a, TEXT(b), c);
    case SYS_fsync:
    case SYS_fdatasync: return sync_file(name, a);
    case SYS_mmap: return map_file(a, b, c, d, e, f);
#ifdef SYS_open
    case SYS_open: return open_at(AT_FDCWD, TEXT(a), b, c);
    case SYS_creat: return open_at(AT_FDCWD, TEXT(a), O_CREAT | O_WRONLY | O_TRUNC, b);
    case SYS_rename: return rename_at(AT_FDCWD, TEXT(a), AT_FDCWD, TEXT(b), 0);
    case SYS_link: return link_at(AT_FDCWD, TEXT(a), AT_FDCWD, TEXT(b), 0);
    case SYS_symlink: return symlink_at(TEXT(a), AT_FDCWD, TEXT(b));
    case SYS_unlink: return unlink_at(AT_FDCWD, TEXT(a), 0);
    case SYS_rmdir: return unlink_at(AT_FDCWD, TEXT(a), AT_REMOVEDIR);
    case SYS_mkdir: return mkdir_at(AT_FDCWD, TEXT(a), b);
    case SYS_chmod: return chmod_at(AT_FDCWD, TEXT(a), b);
#endif
    case SYS_renameat: return rename_at(a, TEXT(b), c, TEXT(d), 0);
    }
    return -EOPNOTSUPP; /* faster ways to write and to copy, whose callers then take another */
}

static const int NAMES[] = {
    SYS_openat, SYS_write, SYS_pwrite64, SYS_writev, SYS_renameat, SYS_renameat2, SYS_linkat, SYS_symlinkat,
    SYS_unlinkat, SYS_mkdirat, SYS_truncate, SYS_ftruncate, SYS_fchmod, SYS_fchmodat, SYS_fsync, SYS_fdatasync, SYS_mmap,
    SYS_fallocate, SYS_copy_file_range, SYS_sendfile, SYS_pwritev, SYS_pwritev2, SYS_splice,
#ifdef SYS_open
    SYS_open, SYS_creat, SYS_rename, SYS_link, SYS_symlink, SYS_unlink, SYS_rmdir, SYS_mkdir, SYS_chmod,
#endif
};
enum { COUNT = sizeof NAMES / sizeof *NAMES };

static void trapped(int signal, siginfo_t *about, void *context) {
    (void)signal;
    int kept = errno;
    mcontext_t *state = &((ucontext_t *)context)->uc_mcontext;
#if defined(__x86_64__)
    greg_t *with = state->gregs;
    with[REG_RAX] = handled(about->si_syscall, with[REG_RDI], with[REG_RSI], with[REG_RDX], with[REG_R10], with[REG_R8],
                            with[REG_R9]);
#else
    unsigned long long *with = state->regs;
    with[0] = handled(about->si_syscall, with[0], with[1], with[2], with[3], with[4], with[5]);
#endif
    errno = kept;
}

/* Watch what this process changes below a folder, from now on. Returns 0, or an error number.
 *
 * folder: absolute and without links. log: open file for the records, or -1.
 * what: an action, which is done at the operations numbered first to last that are of the given kinds.
 * error: for FAIL. gone: folder that VANISH moves away. */
int faults_watch(const char *folder, int log, int what, int of_kinds, long first, long last, int error, const char *gone) {
    snprintf(root, sizeof root, "%s", folder);
    snprintf(vanishing, sizeof vanishing, "%s", gone);
    root_size = strlen(root);
    log_file = log, action = what, kinds = of_kinds, first_number = first, last_number = last, error_number = error;

    struct sigaction handler = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
    sigfillset(&handler.sa_mask);
    if (sigaction(SIGSYS, &handler, NULL)) return errno;
    uint64_t allowed = (uint64_t)faults_called;
    struct sock_filter filter[COUNT + 7] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)allowed, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(allowed >> 32), COUNT + 1, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    for (int i = 0; i < COUNT; i++)
        filter[5 + i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NAMES[i], COUNT - i, 0);
    filter[5 + COUNT] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    filter[6 + COUNT] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    struct sock_fprog program = {COUNT + 7, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return errno;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return errno;
    return 0;
}
