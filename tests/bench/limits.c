/* What no reader can be faster than: open, read, close, and nothing else. Built by limits.py with cc -O3. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

static int whole(const char *path, long offset, char *to, long bytes) {
    int file = open(path, O_RDONLY);
    if (file < 0) return -1;
    long done = 0;
    while (done < bytes) {
        long count = pread(file, to + done, bytes - done, offset + done);
        if (count <= 0) break;
        done += count;
    }
    close(file);
    return done == bytes ? 0 : -1;
}

/* The first 8 KiB of each file. */
int heads(const char **paths, long n) {
    char block[8192];
    for (long k = 0; k < n; k++) {
        int file = open(paths[k], O_RDONLY);
        if (file < 0 || pread(file, block, sizeof block, 0) <= 0) return -1;
        close(file);
    }
    return 0;
}

/* The numbers of each file, side by side, and something added. */
int planes(const char **paths, const long *offsets, long n, long numbers, int16_t add, int16_t *out) {
    for (long k = 0; k < n; k++) {
        int16_t *plane = out + k * numbers;
        if (whole(paths[k], offsets[k], (char *)plane, 2 * numbers)) return -1;
        for (long i = 0; i < numbers; i++) plane[i] += add;
    }
    return 0;
}

/* All numbers of each file through one buffer, of which one row and one column are kept. */
int cross(const char **paths, const long *offsets, long n, long rows, long columns, long row, long column, int16_t add,
          int16_t *coronal, int16_t *sagittal) {
    int16_t *plane = malloc(2 * rows * columns);
    int bad = 0;
    for (long k = 0; k < n && !bad; k++) {
        bad = whole(paths[k], offsets[k], (char *)plane, 2 * rows * columns);
        for (long i = 0; i < columns; i++) coronal[k * columns + i] = plane[row * columns + i] + add;
        for (long j = 0; j < rows; j++) sagittal[k * rows + j] = plane[j * columns + column] + add;
    }
    free(plane);
    return bad;
}
