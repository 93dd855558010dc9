"""A driver library with one GPU whose memory is the host's, compiled when a test wants it.

It lets the packages for device memory run unchanged on a machine without a GPU: every call they make is
really made, with the arguments that a real driver would get. It keeps the promises that code can break by
mistake: a current context on the calling thread, live handles, and captured work that waits for its launch.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

NAME = "libcuda.so.1"

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <time.h>
typedef unsigned long long Ptr;
static __thread void *stack[64];
static __thread int top;
static int context_users, live_things;
static size_t used;
struct Copy { void *to; const void *from; size_t size; struct Copy *next; };
struct Stream { int capturing; struct Copy *first, **last; };
struct Event { double ms; };
static double now_ms(void) {
    struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}
#define NEED if (!top || !stack[top - 1]) return 201; if (context_users < 1) return 201
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *v) { *v = 13030; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return i ? 101 : 0; }
int cuDeviceGetName(char *name, int size, int d) { strncpy(name, "Stand-in", size); return 0; }
int cuDeviceTotalMem_v2(size_t *n, int d) { *n = 1 << 30; return 0; }
int cuDeviceGetAttribute(int *v, int what, int d) { *v = what == 75 ? 8 : what == 76 ? 9 : 0; return 0; }
int cuDeviceGetUuid_v2(char *mark, int d) { memset(mark, 7, 16); return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { context_users++; *c = &context_users; return 0; }
int cuDevicePrimaryCtxRelease_v2(int d) { return context_users-- > 0 ? 0 : 201; }
int cuCtxSetCurrent(void *c) { if (!top) top = 1; stack[top - 1] = c; return 0; }
int cuCtxGetCurrent(void **c) { *c = top ? stack[top - 1] : 0; return 0; }
int cuCtxPushCurrent_v2(void *c) { stack[top++] = c; return 0; }
int cuCtxPopCurrent_v2(void **c) { if (!top) return 201; top--; if (c) *c = stack[top]; return 0; }
int cuCtxGetDevice(int *d) { NEED; *d = 0; return 0; }
int cuCtxGetApiVersion(void *c, unsigned *v) { *v = 13030; return 0; }
int cuCtxSynchronize(void) { NEED; return 0; }
int cuMemAlloc_v2(Ptr *p, size_t n) {
    NEED; if (n > (1u << 30) - used) return 2;
    char *raw = malloc(n + 64); *(size_t *)raw = n; used += n; live_things++; *p = (Ptr)(raw + 64); return 0;
}
int cuMemFree_v2(Ptr p) {
    NEED; char *raw = (char *)p - 64; used -= *(size_t *)raw; free(raw); live_things--; return 0;
}
int cuMemHostAlloc(void **p, size_t n, unsigned f) { NEED; *p = malloc(n); live_things++; return 0; }
int cuMemFreeHost(void *p) { NEED; free(p); live_things--; return 0; }
int cuMemGetInfo_v2(size_t *f, size_t *t) { NEED; *f = (1u << 30) - used; *t = 1u << 30; return 0; }
int cuStreamCreate(struct Stream **s, unsigned f) {
    NEED; if (f != 1) return 1; *s = calloc(1, sizeof **s); live_things++; return 0;
}
int cuStreamDestroy_v2(struct Stream *s) { NEED; free(s); live_things--; return 0; }
int cuStreamSynchronize(struct Stream *s) { NEED; return s->capturing ? 900 : 0; }
static int copy(void *to, const void *from, size_t n, struct Stream *s) {
    if (!s->capturing) { memcpy(to, from, n); return 0; }
    struct Copy *c = malloc(sizeof *c); c->to = to; c->from = from; c->size = n; c->next = 0;
    *s->last = c; s->last = &c->next; return 0;
}
int cuMemcpyHtoDAsync_v2(Ptr to, const void *from, size_t n, struct Stream *s) {
    NEED; return copy((void *)to, from, n, s);
}
int cuMemcpyDtoHAsync_v2(void *to, Ptr from, size_t n, struct Stream *s) {
    NEED; return copy(to, (void *)from, n, s);
}
int cuEventCreate(struct Event **e, unsigned f) { NEED; *e = calloc(1, sizeof **e); live_things++; return 0; }
int cuEventDestroy_v2(struct Event *e) { NEED; free(e); live_things--; return 0; }
int cuEventRecord(struct Event *e, struct Stream *s) { NEED; e->ms = now_ms(); return 0; }
int cuEventSynchronize(struct Event *e) { NEED; return 0; }
int cuEventElapsedTime_v2(float *ms, struct Event *a, struct Event *b) {
    NEED; *ms = b->ms - a->ms; return 0;
}
int cuEventElapsedTime(float *ms, struct Event *a, struct Event *b) {
    return cuEventElapsedTime_v2(ms, a, b);
}
int cuStreamBeginCapture_v2(struct Stream *s, int mode) {
    NEED; if (s->capturing) return 901; s->capturing = 1; s->first = 0; s->last = &s->first; return 0;
}
int cuStreamEndCapture(struct Stream *s, struct Copy **g) {
    NEED; if (!s->capturing) return 901; s->capturing = 0; *g = s->first; live_things++; return 0;
}
int cuGraphInstantiateWithFlags(struct Copy **e, struct Copy *g, Ptr flags) {
    NEED; *e = g; live_things++; return 0;
}
int cuGraphDestroy(struct Copy *g) { live_things--; return 0; }
int cuGraphExecDestroy(struct Copy *e) { NEED; live_things--; return 0; }
int cuGraphLaunch(struct Copy *e, struct Stream *s) {
    NEED; for (; e; e = e->next) copy(e->to, e->from, e->size, s); return 0;
}
int cuGetErrorName(int status, const char **name) {
    *name = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY"
        : status == 201 ? "CUDA_ERROR_INVALID_CONTEXT" : "CUDA_ERROR";
    return 0;
}
int cuGetErrorString(int status, const char **text) {
    *text = status == 2 ? "out of memory" : "failed"; return 0;
}
int standInLive(void) { return live_things; }
int standInUsers(void) { return context_users; }
int cuGetProcAddress_v2(const char *symbol, void **found, int version, Ptr flags, int *status) {
    char name[128]; Dl_info self; dladdr((void *)cuInit, &self);
    void *here = dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    strcpy(name, symbol); strcat(name, "_v2");
    *found = dlsym(here, name);
    if (!*found) *found = dlsym(here, symbol);
    if (status) *status = *found ? 0 : 1;
    return *found ? 0 : 500;
}
int cuGetProcAddress(const char *symbol, void **found, int version, Ptr flags) {
    return cuGetProcAddress_v2(symbol, found, version, flags, 0);
}
"""


def build_driver(folder: Path, for_library: Path | None = None) -> Path:
    """The driver as a file in `folder`; with a library that links to a driver, all that it wants is defined.

    Raises FileNotFoundError where there is no C compiler.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("a stand-in driver is built by the C compiler 'cc', which is not there")
    known = set(re.findall(r"^int (cu\w+)\(", SOURCE, re.MULTILINE))
    unused = sorted(_wanted_symbols(for_library) - known) if for_library else []
    source = folder / "driver.c"
    source.write_text(SOURCE + "".join(f"int {name}(void) {{ return 801; }}\n" for name in unused))
    library = folder / NAME
    subprocess.run([compiler, "-w", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def _wanted_symbols(library: Path) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True
    )
    return set(re.findall(r"\b(cu[A-Z]\w*)", listed.stdout))
