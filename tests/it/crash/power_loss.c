/*
 * A disk that loses power: preloaded into a process, it keeps beside the folder POWER_ROOT an image of it, POWER_IMAGE, that holds
 * only what a power cut would leave: bytes covered by a completed fsync or fdatasync, names covered by one of the file (when it was
 * made) or of its folder (renames, removals). sync_file_range and close do not count. The image is always up to date, so the process
 * may be killed at any moment.
 *
 * POWER_JOURNAL, where given, gets every write, cut, rename, removal and completed sync below the root in the order they happened:
 * a line "kind at length name", a newline, then `length` bytes (of a rename: the new name). With it a test can rebuild the folder
 * as it stood at any moment.
 *
 * Not modelled: folders are durable when made; memory maps are not seen (nothing here writes through one).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    if (!real_##name) real_##name = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* A write or cut that no sync has covered yet. */
struct op {
    struct op *next;
    off_t at;
    size_t length;
    int cut; /* truncate to `at` instead of writing */
    char data[];
};

/* A file below the root, whatever it is called at the moment. */
struct node {
    struct node *next;
    dev_t dev;
    ino_t ino;
    char *name; /* its name in the image, relative; NULL while no name of it is durable */
    struct op *first, **last;
};

/* A name that was taken from its file and may still stand in the image for what it meant before. */
struct gone {
    struct gone *next;
    char *name;
};

static struct node *nodes;
static struct gone *gone;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* the nodes and their ops */
static pthread_mutex_t syncing = PTHREAD_MUTEX_INITIALIZER; /* one sync after the other reaches the image */
static const char *root, *image;
static int journal = -1;

__attribute__((constructor)) static void begin(void) {
    REAL(int, open64, const char *, int, ...);
    const char *path = getenv("POWER_JOURNAL");
    root = getenv("POWER_ROOT");
    image = getenv("POWER_IMAGE");
    if (path) journal = real_open64(path, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0644);
}

static void die(const char *what, const char *name) {
    dprintf(2, "power_loss: cannot %s %s: %s\n", what, name, strerror(errno));
    _exit(99);
}

static void put(const void *data, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    if (real_write(journal, data, length) != (ssize_t)length) die("write", "the journal");
}

static void record(const char *kind, const char *name, off_t at, const void *data, size_t length) {
    char line[PATH_MAX + 64];
    if (journal < 0) return;
    put(line, (size_t)snprintf(line, sizeof line, "%s %lld %zu %s\n", kind, (long long)at, length, name));
    put(data, length);
}

/* The name below the root, or NULL. */
static const char *below_root(const char *path) {
    size_t length;
    if (!root || !image) return NULL;
    length = strlen(root);
    return strncmp(path, root, length) == 0 && path[length] == '/' ? path + length + 1 : NULL;
}

static int name_of_fd(int fd, char *out) {
    char link[64];
    ssize_t length;
    const char *name;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, out, PATH_MAX - 1);
    if (length < 0) return 0;
    out[length] = 0;
    if (length > 10 && strcmp(out + length - 10, " (deleted)") == 0) return 0;
    if (root && strcmp(out, root) == 0) {
        *out = 0;
        return 1;
    }
    name = below_root(out);
    if (!name) return 0;
    memmove(out, name, strlen(name) + 1);
    return 1;
}

static void image_path(char *out, const char *name) {
    if (snprintf(out, PATH_MAX, "%s/%s", image, name) >= PATH_MAX) die("name", name);
}

static void make_folders(const char *path) {
    char folder[PATH_MAX], *slash;
    snprintf(folder, sizeof folder, "%s", path);
    for (slash = folder + strlen(image) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(folder, 0755);
        *slash = '/';
    }
}

static int open_image(const char *name) {
    REAL(int, open64, const char *, int, ...);
    char path[PATH_MAX];
    int fd;
    image_path(path, name);
    make_folders(path);
    fd = real_open64(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) die("open the image of", name);
    return fd;
}

static struct node *known(const struct stat *s) {
    struct node *node;
    for (node = nodes; node; node = node->next)
        if (node->dev == s->st_dev && node->ino == s->st_ino) return node;
    return NULL;
}

static int is_gone(const char *name) {
    struct gone *g;
    for (g = gone; g; g = g->next)
        if (strcmp(g->name, name) == 0) return 1;
    return 0;
}

static void mark_gone(const char *path) {
    const char *name = below_root(path);
    struct gone *g;
    if (!name || is_gone(name)) return;
    g = malloc(sizeof *g);
    if (!g) die("keep", name);
    *g = (struct gone){gone, strdup(name)};
    gone = g;
}

/* The node of a file; a file that stands in the image under its name at first sight was there before us. */
static struct node *node_for(const struct stat *s, const char *name) {
    struct node *node = known(s);
    char path[PATH_MAX];
    if (node) return node;
    node = calloc(1, sizeof *node);
    if (!node) die("keep", name);
    node->dev = s->st_dev;
    node->ino = s->st_ino;
    node->last = &node->first;
    image_path(path, name);
    if (!is_gone(name) && access(path, F_OK) == 0) node->name = strdup(name);
    node->next = nodes;
    return nodes = node;
}

static struct node *node_of_fd(int fd) {
    struct stat s;
    char name[PATH_MAX];
    struct node *node;
    if (!root || fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) return NULL;
    node = known(&s);
    if (node) return node;
    return name_of_fd(fd, name) ? node_for(&s, name) : NULL;
}

static void note(int fd, struct node *node, off_t at, const void *data, size_t length, int cut) {
    struct op *op = malloc(sizeof *op + length);
    char name[PATH_MAX];
    if (name_of_fd(fd, name)) record(cut ? "cut" : "write", name, at, data, length);
    if (!op) die("keep a write of", node->name ? node->name : "a file");
    *op = (struct op){.at = at, .length = length, .cut = cut};
    memcpy(op->data, data, length);
    *node->last = op;
    node->last = &op->next;
}

static void forget_name(const char *name) {
    struct node *node;
    for (node = nodes; node; node = node->next)
        if (node->name && strcmp(node->name, name) == 0) {
            free(node->name);
            node->name = NULL;
        }
}

/* A synced folder: its names are durable now, gone ones are gone; contents stay what file syncs made them. */
static void sync_folder(const char *folder) {
    REAL(int, rename, const char *, const char *);
    REAL(int, unlink, const char *);
    char real[PATH_MAX], name[PATH_MAX], from[PATH_MAX], to[PATH_MAX];
    struct dirent *entry;
    struct stat s;
    struct node *node;
    DIR *dir;
    snprintf(real, sizeof real, "%s/%s", root, folder);
    if (!(dir = opendir(real))) return;
    while ((entry = readdir(dir))) {
        if (fstatat(dirfd(dir), entry->d_name, &s, 0) != 0 || !S_ISREG(s.st_mode)) continue;
        snprintf(name, sizeof name, "%s%s%s", folder, *folder ? "/" : "", entry->d_name);
        node = node_for(&s, name);
        if (node->name && strcmp(node->name, name) == 0) continue;
        image_path(to, name);
        make_folders(to);
        if (node->name) {
            image_path(from, node->name);
            if (real_rename(from, to) != 0) die("rename in the image", name);
        } else {
            real_unlink(to);
            close(open_image(name));
        }
        forget_name(name);
        free(node->name);
        node->name = strdup(name);
    }
    closedir(dir);
    image_path(to, folder);
    if (!(dir = opendir(to))) return;
    while ((entry = readdir(dir))) {
        snprintf(name, sizeof name, "%s%s%s", folder, *folder ? "/" : "", entry->d_name);
        snprintf(real, sizeof real, "%s/%s", root, name);
        if (access(real, F_OK) == 0 || fstatat(dirfd(dir), entry->d_name, &s, 0) != 0 || !S_ISREG(s.st_mode)) continue;
        forget_name(name);
        image_path(from, name);
        real_unlink(from);
    }
    closedir(dir);
}

static void apply(struct node *node, struct op *op) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    REAL(int, ftruncate64, int, off64_t);
    struct op *next;
    int fd = open_image(node->name);
    for (; op; op = next) {
        next = op->next;
        if (op->cut ? real_ftruncate64(fd, op->at) != 0 : real_pwrite64(fd, op->data, op->length, op->at) != (ssize_t)op->length)
            die("write the image of", node->name);
        free(op);
    }
    close(fd);
}

static int synced(int fd, int (*really)(int)) {
    char name[PATH_MAX];
    struct stat s;
    struct node *node;
    struct op *ops = NULL;
    int result;
    if (!root || fstat(fd, &s) != 0) return really(fd);
    pthread_mutex_lock(&syncing);
    pthread_mutex_lock(&lock);
    node = node_of_fd(fd);
    if (node) { /* what was written before the sync began is what it covers */
        ops = node->first;
        node->first = NULL;
        node->last = &node->first;
    }
    pthread_mutex_unlock(&lock);
    result = really(fd);
    if (result != 0) die("sync", "a file");
    pthread_mutex_lock(&lock);
    if (name_of_fd(fd, name)) record("sync", name, 0, "", 0);
    if (node && (node->name || name_of_fd(fd, name))) {
        if (!node->name) { /* a new file under, perhaps, an old name */
            REAL(int, unlink, const char *);
            char path[PATH_MAX];
            image_path(path, name);
            real_unlink(path);
            forget_name(name);
            node->name = strdup(name);
        }
        apply(node, ops);
    } else if (S_ISDIR(s.st_mode) && name_of_fd(fd, name)) {
        sync_folder(name);
    }
    pthread_mutex_unlock(&lock);
    pthread_mutex_unlock(&syncing);
    return result;
}

int fsync(int fd) {
    REAL(int, fsync, int);
    return synced(fd, real_fsync);
}

int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return synced(fd, real_fdatasync);
}

/* Runs a positioned write and notes what it wrote. */
#define WRITE_AT(call, at, buffer) \
    ssize_t wrote; \
    struct node *node; \
    pthread_mutex_lock(&lock); \
    node = node_of_fd(fd); \
    wrote = call; \
    if (node && wrote > 0) note(fd, node, at, buffer, (size_t)wrote, 0); \
    pthread_mutex_unlock(&lock); \
    return wrote

ssize_t pwrite(int fd, const void *buffer, size_t length, off_t at) {
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    WRITE_AT(real_pwrite(fd, buffer, length, at), at, buffer);
}

ssize_t pwrite64(int fd, const void *buffer, size_t length, off64_t at) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    WRITE_AT(real_pwrite64(fd, buffer, length, at), at, buffer);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    (void)count; /* a short write is a write */
    return pwrite(fd, parts->iov_base, parts->iov_len, at);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    (void)count;
    return pwrite64(fd, parts->iov_base, parts->iov_len, at);
}

static off_t where(int fd) {
    struct stat s;
    if (fcntl(fd, F_GETFL) & O_APPEND) return fstat(fd, &s) == 0 ? s.st_size : 0;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *buffer, size_t length) {
    REAL(ssize_t, write, int, const void *, size_t);
    struct stat s;
    off_t at;
    if (!root || fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) return real_write(fd, buffer, length);
    at = where(fd);
    WRITE_AT(real_write(fd, buffer, length), at, buffer);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    struct stat s;
    if (!root || count < 1 || fstat(fd, &s) != 0 || !S_ISREG(s.st_mode)) return real_writev(fd, parts, count);
    return write(fd, parts->iov_base, parts->iov_len);
}

static void note_cut(int fd, off_t length) {
    struct node *node = node_of_fd(fd);
    if (node) note(fd, node, length, "", 0, 1);
}

int ftruncate(int fd, off_t length) {
    REAL(int, ftruncate, int, off_t);
    int result;
    pthread_mutex_lock(&lock);
    result = real_ftruncate(fd, length);
    if (result == 0) note_cut(fd, length);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t length) {
    REAL(int, ftruncate64, int, off64_t);
    int result;
    pthread_mutex_lock(&lock);
    result = real_ftruncate64(fd, length);
    if (result == 0) note_cut(fd, length);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Opening matters only for what it cuts; names and numbers are found from the descriptor. */
#define OPENED(call) \
    mode_t mode = 0; \
    int fd; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    } \
    fd = call; \
    if (fd >= 0 && (flags & O_TRUNC)) { \
        pthread_mutex_lock(&lock); \
        note_cut(fd, 0); \
        pthread_mutex_unlock(&lock); \
    } \
    return fd

int open(const char *path, int flags, ...) {
    REAL(int, open, const char *, int, ...);
    OPENED(real_open(path, flags, mode));
}

int open64(const char *path, int flags, ...) {
    REAL(int, open64, const char *, int, ...);
    OPENED(real_open64(path, flags, mode));
}

int openat(int at, const char *path, int flags, ...) {
    REAL(int, openat, int, const char *, int, ...);
    OPENED(real_openat(at, path, flags, mode));
}

int openat64(int at, const char *path, int flags, ...) {
    REAL(int, openat64, int, const char *, int, ...);
    OPENED(real_openat64(at, path, flags, mode));
}

/* A file without names gives its number back, maybe to another file. */
static void forget_last_name(const char *path) {
    struct stat s;
    struct node **node;
    if (!root || stat(path, &s) != 0 || !S_ISREG(s.st_mode) || s.st_nlink > 1) return;
    for (node = &nodes; *node; node = &(*node)->next)
        if ((*node)->dev == s.st_dev && (*node)->ino == s.st_ino) {
            *node = (*node)->next; /* leaks what was never synced; the process is short-lived */
            return;
        }
}

int unlink(const char *path) {
    REAL(int, unlink, const char *);
    pthread_mutex_lock(&lock);
    if (below_root(path)) record("remove", below_root(path), 0, "", 0);
    forget_last_name(path);
    mark_gone(path);
    pthread_mutex_unlock(&lock);
    return real_unlink(path);
}

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    pthread_mutex_lock(&lock);
    if (below_root(from) && below_root(to)) record("rename", below_root(from), 0, below_root(to), strlen(below_root(to)));
    forget_last_name(to);
    mark_gone(from);
    mark_gone(to);
    pthread_mutex_unlock(&lock);
    return real_rename(from, to);
}

/* Ways to write past us: refused, so that callers fall back to write. */
ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t length, unsigned flags) {
    (void)in, (void)in_at, (void)out, (void)out_at, (void)length, (void)flags;
    errno = ENOSYS;
    return -1;
}

ssize_t sendfile64(int out, int in, off64_t *at, size_t length) {
    (void)out, (void)in, (void)at, (void)length;
    errno = ENOSYS;
    return -1;
}
