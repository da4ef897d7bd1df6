/* A CUDA driver without a card: what Numba CUDA, cuda-core and the compiler ask of libcuda.so.1, for tests.

   Kernels do nothing, so no number is computed. All the rest is as on a card: what fits into its memory, which context is
   current in which thread, what may not be done while a stream is captured, what a compiled kernel may be loaded on.
   "Device memory" is the host's, zeroed, so copies arrive. Everything is done at once; nothing runs meanwhile.

   Set by environment variables:
     STANDIN_CARDS               number of cards (1)
     STANDIN_CAPABILITY          their compute capability (9.0)
     STANDIN_MEMORY              bytes of a card (8 GiB)
     STANDIN_FAIL_ALLOCATION     N: the N-th allocation of this process fails, on a card or of pinned memory, and all
                                 after it (Numba tries once more, after it has freed what it can)
     STANDIN_FAIL_CAPTURE        begin or end: there a capture fails
     STANDIN_LOG                 a file that each call is written to which does something, a line each:

       cuMemAlloc result=0 thread=1 device=0 bytes=4096
       cuLaunchKernelEx result=0 thread=1 device=0 stream=3 kernel=_ZN... grid=1,1,1 block=256 captured=0

     "device" is the one that it is done on, -1 where none is current. A call that has no place in what is captured,
     whether a real driver refuses it or not, has violation=... at its end.

   Functions that are not here are not found by cuGetProcAddress, and Python says so when one is called. */

#define _GNU_SOURCE
#include <cuda.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CARDS = 16, DEEPEST = 64 };

struct CUctx_st { int device, retained; };
struct CUgraph_st { long kernels; };
struct CUgraphExec_st { long kernels; };
struct CUlib_st { int number; };
struct CUkern_st { CUlibrary library; char *name; };
struct CUevent_st { CUcontext context; int number; };
struct CUuserObject_st { void *pointer; CUhostFn destroy; };
struct CUstream_st {
    CUcontext context;
    int number;
    unsigned flags;
    CUstreamCaptureStatus status;
    CUstreamCaptureMode mode;
    int thread; /* that began the capture */
    CUgraph graph;
    CUstream next;
};

typedef struct Allocation {
    char *start;
    size_t bytes;
    CUcontext context; /* NULL of pinned memory */
    struct Allocation *next;
} Allocation;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int initialised, streams_made = 2, events_made, libraries_made, threads_seen, allocations_made;
static struct CUctx_st contexts[MOST_CARDS];
static size_t used[MOST_CARDS];
static Allocation *allocations;
static CUstream streams;
static __thread CUcontext stack[DEEPEST];
static __thread int depth, thread_number;

/* ------------------------------------------------------------------------------------------------ what all share */

static void unlock(int *unused) { (void)unused; pthread_mutex_unlock(&mutex); }

/* Each function that looks at more than its arguments begins with this, and gives the lock back where it returns. */
#define LOCKED __attribute__((cleanup(unlock), unused)) int locked = pthread_mutex_lock(&mutex)

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static int cards(void) { return atoi(setting("STANDIN_CARDS", "1")); }
static size_t memory(void) { return strtoull(setting("STANDIN_MEMORY", "8589934592"), NULL, 10); }
static CUcontext current(void) { return depth ? stack[depth - 1] : NULL; }

static int thread(void) {
    if (!thread_number)
        thread_number = ++threads_seen;
    return thread_number;
}

/* Write a call to the log; gives back its result. */
static CUresult done(const char *call, CUresult result, int device, const char *format, ...) {
    static FILE *file;
    const char *name = setting("STANDIN_LOG", NULL);
    if (!name)
        return result;
    if (!file) {
        file = fopen(name, "a");
        if (!file)
            abort();
        setvbuf(file, NULL, _IOLBF, BUFSIZ);
    }
    fprintf(file, "%s result=%d thread=%d device=%d", call, result, thread(), device);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(file, format, arguments);
    va_end(arguments);
    fputc('\n', file);
    return result;
}

static int device_of(CUcontext context) { return context ? context->device : -1; }

static int is_default(CUstream stream) { return !stream || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD; }

static CUcontext context_of(CUstream stream) { return is_default(stream) ? current() : stream->context; }

static int number_of(CUstream stream) {
    return !stream || stream == CU_STREAM_LEGACY ? 0 : stream == CU_STREAM_PER_THREAD ? 1 : stream->number;
}

static int is_captured(CUstream stream) {
    return !is_default(stream) && stream->status != CU_STREAM_CAPTURE_STATUS_NONE;
}

/* ----------------------------------------------------------------------------------------- what a capture forbids */

typedef enum { UNSAFE, ON_DEFAULT_STREAM, WAITS } Deed;

/* What a driver says to something that is done while streams are captured: to what is unsafe (allocations, copies that
   wait, loading code) unless the capture is relaxed; to work on the default stream if it would wait for the captured
   one; to waiting for what is only recorded, always (stream: the one waited for, NULL for all). What it refuses makes
   the capture invalid. In *violation is said what the log says, also of what is allowed. */
static CUresult while_captured(Deed deed, CUcontext context, CUstream stream, const char **violation) {
    static const char *const words[] = {" violation=unsafe", " violation=not_captured", " violation=waits"};
    CUresult result = CUDA_SUCCESS;
    *violation = "";
    for (CUstream one = streams; one; one = one->next) {
        int refused = 0;
        if (one->status == CU_STREAM_CAPTURE_STATUS_NONE || one->context != context)
            continue;
        *violation = words[deed];
        if (deed == UNSAFE)
            refused = one->mode == CU_STREAM_CAPTURE_MODE_GLOBAL ||
                      (one->mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL && one->thread == thread());
        else if (deed == ON_DEFAULT_STREAM)
            refused = !(one->flags & CU_STREAM_NON_BLOCKING);
        else
            refused = !stream || stream == one;
        if (refused) {
            one->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
            result = deed == ON_DEFAULT_STREAM ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    return result;
}

/* As above, for work that is given to a stream: what a captured stream gets is recorded, which is as it should be. */
static CUresult given_to(CUstream stream, const char **violation) {
    *violation = "";
    if (!context_of(stream))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (is_captured(stream))
        return stream->status == CU_STREAM_CAPTURE_STATUS_ACTIVE ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (is_default(stream))
        return while_captured(ON_DEFAULT_STREAM, context_of(stream), stream, violation);
    return CUDA_SUCCESS;
}

/* ------------------------------------------------------------------------------------------------------- the cards */

CUresult cuInit(unsigned flags) {
    LOCKED;
    (void)flags;
    initialised = 1;
    for (int device = 0; device < MOST_CARDS; device++)
        contexts[device].device = device;
    return cards() ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version) {
    *version = CUDA_VERSION;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int *count) {
    *count = cards();
    return initialised ? CUDA_SUCCESS : CUDA_ERROR_NOT_INITIALIZED;
}

CUresult cuDeviceGet(CUdevice *device, int ordinal) {
    *device = ordinal;
    return !initialised ? CUDA_ERROR_NOT_INITIALIZED
           : ordinal < 0 || ordinal >= cards() ? CUDA_ERROR_INVALID_DEVICE : CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
    snprintf(name, (size_t)length, "stand-in card %d", device);
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device) {
    memset(uuid, device + 1, sizeof *uuid);
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem(size_t *bytes, CUdevice device) {
    (void)device;
    *bytes = memory();
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
    int major = 0, minor = 0;
    (void)device;
    sscanf(setting("STANDIN_CAPABILITY", "9.0"), "%d.%d", &major, &minor);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = major; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = minor; break;
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: *value = 1024; break;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: *value = 48 << 10; break;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = 132; break;
    default: *value = 1;
    }
    return CUDA_SUCCESS;
}

/* ---------------------------------------------------------------------------------------------------- the contexts */

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
    LOCKED;
    if (device < 0 || device >= cards())
        return CUDA_ERROR_INVALID_DEVICE;
    *context = &contexts[device];
    contexts[device].retained++;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRelease(CUdevice device) {
    LOCKED;
    contexts[device].retained--;
    return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active) {
    LOCKED;
    *flags = 0;
    *active = contexts[device].retained > 0;
    return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
    *context = current();
    return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
    LOCKED;
    if (depth)
        depth--;
    if (context)
        stack[depth++] = context;
    return done("cuCtxSetCurrent", CUDA_SUCCESS, device_of(current()), "");
}

CUresult cuCtxPushCurrent(CUcontext context) {
    LOCKED;
    if (!context || depth == DEEPEST)
        return CUDA_ERROR_INVALID_CONTEXT;
    stack[depth++] = context;
    return done("cuCtxPushCurrent", CUDA_SUCCESS, device_of(current()), "");
}

CUresult cuCtxPopCurrent(CUcontext *context) {
    LOCKED;
    if (!depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    depth--;
    if (context)
        *context = stack[depth];
    return done("cuCtxPopCurrent", CUDA_SUCCESS, device_of(current()), "");
}

CUresult cuCtxGetDevice(CUdevice *device) {
    *device = device_of(current());
    return depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuCtxSynchronize(void) {
    LOCKED;
    const char *violation = "";
    CUresult result = depth ? while_captured(WAITS, current(), NULL, &violation) : CUDA_ERROR_INVALID_CONTEXT;
    return done("cuCtxSynchronize", result, device_of(current()), "%s", violation);
}

/* ------------------------------------------------------------------------------------------------------ the memory */

static Allocation *find(const void *address, size_t bytes) {
    const char *start = address;
    for (Allocation *one = allocations; one; one = one->next)
        if (start >= one->start && start + bytes <= one->start + one->bytes)
            return one;
    return NULL;
}

static CUresult allocate(const char *call, void **address, size_t bytes, CUcontext context) {
    const char *violation = "";
    CUresult result = depth ? while_captured(UNSAFE, current(), NULL, &violation) : CUDA_ERROR_INVALID_CONTEXT;
    long failing = atol(setting("STANDIN_FAIL_ALLOCATION", "0"));
    if (result == CUDA_SUCCESS && !bytes)
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS) {
        Allocation *made = malloc(sizeof *made);
        allocations_made++;
        if ((failing && allocations_made >= failing) || (context && used[context->device] + bytes > memory()) ||
            posix_memalign((void **)&made->start, 512, bytes)) {
            free(made);
            result = CUDA_ERROR_OUT_OF_MEMORY;
        } else {
            memset(made->start, 0, bytes);
            made->bytes = bytes;
            made->context = context;
            made->next = allocations;
            allocations = made;
            if (context)
                used[context->device] += bytes;
            *address = made->start;
        }
    }
    return done(call, result, device_of(current()), " bytes=%zu number=%d%s", bytes, allocations_made, violation);
}

static CUresult release(const char *call, void *address) {
    const char *violation = "";
    CUresult result = while_captured(UNSAFE, current(), NULL, &violation);
    size_t bytes = 0;
    for (Allocation **link = &allocations; result == CUDA_SUCCESS; link = &(*link)->next) {
        Allocation *one = *link;
        if (!one) {
            result = CUDA_ERROR_INVALID_VALUE;
        } else if (one->start == address) {
            *link = one->next;
            bytes = one->bytes;
            if (one->context)
                used[one->context->device] -= bytes;
            free(one->start);
            free(one);
            break;
        }
    }
    return done(call, result, device_of(current()), " bytes=%zu%s", bytes, violation);
}

CUresult cuMemGetInfo(size_t *free_bytes, size_t *total) {
    LOCKED;
    if (!depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    *total = memory();
    *free_bytes = *total - used[current()->device];
    return done("cuMemGetInfo", CUDA_SUCCESS, current()->device, " free=%zu", *free_bytes);
}

CUresult cuMemAlloc(CUdeviceptr *address, size_t bytes) {
    LOCKED;
    return allocate("cuMemAlloc", (void **)address, bytes, current());
}

CUresult cuMemFree(CUdeviceptr address) {
    LOCKED;
    return release("cuMemFree", (void *)address);
}

CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
    LOCKED;
    (void)flags;
    return allocate("cuMemHostAlloc", address, bytes, NULL);
}

CUresult cuMemFreeHost(void *address) {
    LOCKED;
    return release("cuMemFreeHost", address);
}

/* A copy, or, from NULL, zeros; waits: without a stream. Each address on a card must be in what was allocated. */
static CUresult copy(const char *call, void *to, const void *from, size_t bytes, int to_card, int from_card,
                     CUstream stream, int waits) {
    const char *violation = "";
    CUresult result = given_to(stream, &violation);
    if (result == CUDA_SUCCESS && waits)
        result = while_captured(UNSAFE, current(), NULL, &violation);
    if (result == CUDA_SUCCESS && ((to_card && !find(to, bytes)) || (from_card && !find(from, bytes))))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && !is_captured(stream))
        memcpy(to, from, bytes);
    return done(call, result, device_of(context_of(stream)), " bytes=%zu stream=%d%s", bytes, number_of(stream), violation);
}

CUresult cuMemcpyHtoD(CUdeviceptr to, const void *from, size_t bytes) {
    LOCKED;
    return copy("cuMemcpyHtoD", (void *)to, from, bytes, 1, 0, NULL, 1);
}

CUresult cuMemcpyDtoH(void *to, CUdeviceptr from, size_t bytes) {
    LOCKED;
    return copy("cuMemcpyDtoH", to, (void *)from, bytes, 0, 1, NULL, 1);
}

CUresult cuMemcpyDtoD(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    LOCKED;
    return copy("cuMemcpyDtoD", (void *)to, (void *)from, bytes, 1, 1, NULL, 1);
}

CUresult cuMemcpyHtoDAsync(CUdeviceptr to, const void *from, size_t bytes, CUstream stream) {
    LOCKED;
    return copy("cuMemcpyHtoDAsync", (void *)to, from, bytes, 1, 0, stream, 0);
}

CUresult cuMemcpyDtoHAsync(void *to, CUdeviceptr from, size_t bytes, CUstream stream) {
    LOCKED;
    return copy("cuMemcpyDtoHAsync", to, (void *)from, bytes, 0, 1, stream, 0);
}

CUresult cuPointerGetAttribute(void *value, CUpointer_attribute attribute, CUdeviceptr address) {
    LOCKED;
    Allocation *found = find((void *)address, 0);
    if (!found)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: *(CUcontext *)value = found->context; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)value = found->context ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER: *(CUdeviceptr *)value = address; return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL: *(int *)value = device_of(found->context); return CUDA_SUCCESS;
    default: return CUDA_ERROR_NOT_SUPPORTED;
    }
}

/* -------------------------------------------------------------------------------------------- streams and captures */

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority) {
    LOCKED;
    (void)priority;
    if (!depth)
        return done("cuStreamCreate", CUDA_ERROR_INVALID_CONTEXT, -1, "");
    CUstream made = calloc(1, sizeof *made);
    made->context = current();
    made->number = streams_made++;
    made->flags = flags;
    made->next = streams;
    *stream = streams = made;
    return done("cuStreamCreate", CUDA_SUCCESS, device_of(current()), " stream=%d flags=%u", made->number, flags);
}

CUresult cuStreamCreate(CUstream *stream, unsigned flags) { return cuStreamCreateWithPriority(stream, flags, 0); }

CUresult cuStreamDestroy(CUstream stream) {
    LOCKED;
    int device = device_of(stream->context), number = stream->number;
    for (CUstream *link = &streams; *link; link = &(*link)->next)
        if (*link == stream) {
            *link = stream->next;
            break;
        }
    free(stream);
    return done("cuStreamDestroy", CUDA_SUCCESS, device, " stream=%d", number);
}

CUresult cuStreamSynchronize(CUstream stream) {
    LOCKED;
    const char *violation = "";
    CUcontext context = context_of(stream);
    CUresult result = context ? while_captured(WAITS, context, stream, &violation) : CUDA_ERROR_INVALID_CONTEXT;
    return done("cuStreamSynchronize", result, device_of(context), " stream=%d%s", number_of(stream), violation);
}

CUresult cuStreamGetFlags(CUstream stream, unsigned *flags) {
    *flags = is_default(stream) ? CU_STREAM_DEFAULT : stream->flags;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetPriority(CUstream stream, int *priority) {
    (void)stream;
    *priority = 0;
    return CUDA_SUCCESS;
}

CUresult cuStreamGetCtx(CUstream stream, CUcontext *context) {
    *context = context_of(stream);
    return *context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags) {
    LOCKED;
    const char *violation = "";
    CUresult result = given_to(stream, &violation);
    (void)flags;
    return done("cuStreamWaitEvent", result, device_of(context_of(stream)), " stream=%d event=%d%s", number_of(stream),
                event->number, violation);
}

CUresult cuStreamBeginCapture(CUstream stream, CUstreamCaptureMode mode) {
    LOCKED;
    CUresult result = is_default(stream) || !strcmp(setting("STANDIN_FAIL_CAPTURE", ""), "begin")
                          ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        stream->status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
        stream->mode = mode;
        stream->thread = thread();
        stream->graph = calloc(1, sizeof *stream->graph);
    }
    return done("cuStreamBeginCapture", result, device_of(context_of(stream)), " stream=%d", number_of(stream));
}

CUresult cuStreamEndCapture(CUstream stream, CUgraph *graph) {
    LOCKED;
    CUresult result = is_captured(stream) ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_STATE;
    long kernels = 0;
    *graph = NULL;
    if (result == CUDA_SUCCESS) {
        kernels = stream->graph->kernels;
        if (stream->status != CU_STREAM_CAPTURE_STATUS_ACTIVE || !strcmp(setting("STANDIN_FAIL_CAPTURE", ""), "end")) {
            free(stream->graph);
            result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        } else {
            *graph = stream->graph;
        }
        stream->status = CU_STREAM_CAPTURE_STATUS_NONE;
        stream->graph = NULL;
    }
    return done("cuStreamEndCapture", result, device_of(context_of(stream)), " stream=%d kernels=%ld",
                number_of(stream), kernels);
}

CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
    *status = is_default(stream) ? CU_STREAM_CAPTURE_STATUS_NONE : stream->status;
    return CUDA_SUCCESS;
}

/* The versions 2 and 3 of cuStreamGetCaptureInfo, under whatever name the header has them. */
static CUresult capture_info_2(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
                               const CUgraphNode **nodes, size_t *count) {
    *status = is_default(stream) ? CU_STREAM_CAPTURE_STATUS_NONE : stream->status;
    if (id)
        *id = (cuuint64_t)number_of(stream);
    if (graph)
        *graph = is_default(stream) ? NULL : stream->graph;
    if (nodes)
        *nodes = NULL;
    if (count)
        *count = 0;
    return CUDA_SUCCESS;
}

static CUresult capture_info_3(CUstream stream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
                               const CUgraphNode **nodes, const void **edges, size_t *count) {
    if (edges)
        *edges = NULL;
    return capture_info_2(stream, status, id, graph, nodes, count);
}

CUresult cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph, CUDA_GRAPH_INSTANTIATE_PARAMS *params) {
    LOCKED;
    *exec = malloc(sizeof **exec);
    (*exec)->kernels = graph->kernels;
    params->result_out = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return done("cuGraphInstantiate", CUDA_SUCCESS, device_of(current()), " kernels=%ld", graph->kernels);
}

CUresult cuGraphLaunch(CUgraphExec exec, CUstream stream) {
    LOCKED;
    const char *violation = "";
    CUresult result = given_to(stream, &violation);
    return done("cuGraphLaunch", result, device_of(context_of(stream)), " stream=%d kernels=%ld%s", number_of(stream),
                exec->kernels, violation);
}

CUresult cuGraphDestroy(CUgraph graph) {
    free(graph);
    return CUDA_SUCCESS;
}

CUresult cuGraphExecDestroy(CUgraphExec exec) {
    free(exec);
    return CUDA_SUCCESS;
}

/* cuda-core ties what a graph uses to it in this way. Here nothing uses it, and it is let go when the process ends. */
CUresult cuUserObjectCreate(CUuserObject *object, void *pointer, CUhostFn destroy, unsigned count, unsigned flags) {
    (void)count;
    (void)flags;
    *object = malloc(sizeof **object);
    (*object)->pointer = pointer;
    (*object)->destroy = destroy;
    return CUDA_SUCCESS;
}

CUresult cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned count, unsigned flags) {
    (void)graph;
    (void)object;
    (void)count;
    (void)flags;
    return CUDA_SUCCESS;
}

CUresult cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned count) {
    return cuGraphRetainUserObject(graph, object, count, 0);
}

/* --------------------------------------------------------------------------------------------------------- events */

CUresult cuEventCreate(CUevent *event, unsigned flags) {
    LOCKED;
    (void)flags;
    if (!depth)
        return CUDA_ERROR_INVALID_CONTEXT;
    *event = malloc(sizeof **event);
    (*event)->context = current();
    (*event)->number = events_made++;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream stream) {
    LOCKED;
    const char *violation = "";
    CUresult result = given_to(stream, &violation);
    if (result == CUDA_SUCCESS && event->context != context_of(stream))
        result = CUDA_ERROR_INVALID_HANDLE;
    return done("cuEventRecord", result, device_of(context_of(stream)), " event=%d stream=%d%s", event->number,
                number_of(stream), violation);
}

CUresult cuEventSynchronize(CUevent event) {
    LOCKED;
    const char *violation = "";
    while_captured(WAITS, event->context, CU_STREAM_LEGACY, &violation);
    return done("cuEventSynchronize", CUDA_SUCCESS, device_of(event->context), " event=%d%s", event->number, violation);
}

CUresult cuEventQuery(CUevent event) {
    (void)event;
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float *milliseconds, CUevent start, CUevent stop) {
    (void)start;
    (void)stop;
    *milliseconds = 1;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy(CUevent event) {
    free(event);
    return CUDA_SUCCESS;
}

/* -------------------------------------------------------------------------------------------------------- kernels */

/* The compute capability (90 for 9.0) that machine code is for, of its ELF header's flags; 0 of what is no ELF file. */
static int capability_of(const unsigned char *image) {
    uint32_t flags;
    if (memcmp(image, "\177ELF", 4))
        return 0;
    memcpy(&flags, image + 48, sizeof flags);
    return (int)(image[7] == 0x41 ? flags >> 8 & 0xff : flags & 0xff);
}

CUresult cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options, void **values, unsigned count,
                           CUlibraryOption *library_options, void **library_values, unsigned library_count) {
    LOCKED;
    const char *violation = "";
    CUresult result = while_captured(UNSAFE, current(), NULL, &violation);
    int capability = capability_of(image), major = atoi(setting("STANDIN_CAPABILITY", "9.0"));
    (void)options, (void)values, (void)count, (void)library_options, (void)library_values, (void)library_count;
    if (result == CUDA_SUCCESS && capability / 10 != major)
        result = CUDA_ERROR_NO_BINARY_FOR_GPU;
    if (result == CUDA_SUCCESS) {
        *library = malloc(sizeof **library);
        (*library)->number = libraries_made++;
    }
    return done("cuLibraryLoadData", result, device_of(current()), " capability=%d%s", capability, violation);
}

CUresult cuLibraryUnload(CUlibrary library) {
    free(library);
    return CUDA_SUCCESS;
}

CUresult cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name) {
    *kernel = malloc(sizeof **kernel); /* for as long as the process lives */
    (*kernel)->library = library;
    (*kernel)->name = strdup(name);
    return CUDA_SUCCESS;
}

CUresult cuKernelGetLibrary(CUlibrary *library, CUkernel kernel) {
    *library = kernel->library;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
    *function = (CUfunction)kernel;
    return depth ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
    (void)function;
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel, CUdevice device) {
    (void)device;
    return cuFuncGetAttribute(value, attribute, (CUfunction)kernel);
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra) {
    LOCKED;
    CUstream stream = config->hStream;
    const char *violation = "";
    CUresult result = given_to(stream, &violation);
    uint64_t threads = (uint64_t)config->blockDimX * config->blockDimY * config->blockDimZ;
    (void)parameters, (void)extra;
    if (result == CUDA_SUCCESS && context_of(stream) != current())
        result = current() ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_INVALID_CONTEXT;
    if (result == CUDA_SUCCESS &&
        (!config->gridDimX || !config->gridDimY || !config->gridDimZ || config->gridDimX > INT32_MAX ||
         config->gridDimY > 65535 || config->gridDimZ > 65535 || !threads || threads > 1024 ||
         config->sharedMemBytes > 48 << 10))
        result = CUDA_ERROR_INVALID_VALUE;
    if (result == CUDA_SUCCESS && is_captured(stream))
        stream->graph->kernels++;
    return done("cuLaunchKernelEx", result, device_of(context_of(stream)),
                " stream=%d kernel=%s grid=%u,%u,%u block=%llu captured=%d%s", number_of(stream),
                ((CUkernel)function)->name, config->gridDimX, config->gridDimY, config->gridDimZ,
                (unsigned long long)threads, is_captured(stream), violation);
}

/* --------------------------------------------------------------------------------- errors, and how all of it is found */

#define ERROR(name) {name, #name}
static const struct { CUresult number; const char *name; } errors[] = {
    ERROR(CUDA_SUCCESS), ERROR(CUDA_ERROR_INVALID_VALUE), ERROR(CUDA_ERROR_OUT_OF_MEMORY),
    ERROR(CUDA_ERROR_NOT_INITIALIZED), ERROR(CUDA_ERROR_NO_DEVICE), ERROR(CUDA_ERROR_INVALID_DEVICE),
    ERROR(CUDA_ERROR_INVALID_CONTEXT), ERROR(CUDA_ERROR_NO_BINARY_FOR_GPU), ERROR(CUDA_ERROR_INVALID_HANDLE),
    ERROR(CUDA_ERROR_ILLEGAL_STATE), ERROR(CUDA_ERROR_NOT_FOUND), ERROR(CUDA_ERROR_NOT_SUPPORTED), ERROR(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
    ERROR(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED), ERROR(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
};

CUresult cuGetErrorName(CUresult error, const char **name) {
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].number == error) {
            *name = errors[i].name;
            return CUDA_SUCCESS;
        }
    *name = NULL;
    return CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }

/* NVIDIA's own libraries ask for tables of functions that nobody documents, and do without. */
CUresult cuGetExportTable(const void **table, const CUuuid *id) {
    (void)table;
    (void)id;
    return CUDA_ERROR_NOT_FOUND;
}

#define FUNCTION(name) {#name, 0, (void *)name}
static const struct { const char *name; int version; void *function; } functions[] = {
    FUNCTION(cuInit), FUNCTION(cuDriverGetVersion), FUNCTION(cuDeviceGetCount), FUNCTION(cuDeviceGet),
    FUNCTION(cuDeviceGetName), FUNCTION(cuDeviceGetUuid), FUNCTION(cuDeviceTotalMem), FUNCTION(cuDeviceGetAttribute),
    FUNCTION(cuDevicePrimaryCtxRetain), FUNCTION(cuDevicePrimaryCtxRelease), FUNCTION(cuDevicePrimaryCtxGetState),
    FUNCTION(cuCtxGetCurrent), FUNCTION(cuCtxSetCurrent), FUNCTION(cuCtxPushCurrent), FUNCTION(cuCtxPopCurrent),
    FUNCTION(cuCtxGetDevice), FUNCTION(cuCtxGetStreamPriorityRange), FUNCTION(cuCtxSynchronize),
    FUNCTION(cuMemGetInfo), FUNCTION(cuMemAlloc), FUNCTION(cuMemFree), FUNCTION(cuMemHostAlloc),
    FUNCTION(cuMemFreeHost), FUNCTION(cuMemcpyHtoD), FUNCTION(cuMemcpyDtoH), FUNCTION(cuMemcpyDtoD),
    FUNCTION(cuMemcpyHtoDAsync), FUNCTION(cuMemcpyDtoHAsync), FUNCTION(cuPointerGetAttribute),
    FUNCTION(cuStreamCreate), FUNCTION(cuStreamCreateWithPriority), FUNCTION(cuStreamDestroy),
    FUNCTION(cuStreamSynchronize), FUNCTION(cuStreamGetFlags), FUNCTION(cuStreamGetPriority),
    FUNCTION(cuStreamWaitEvent), FUNCTION(cuStreamBeginCapture), FUNCTION(cuStreamEndCapture),
    FUNCTION(cuStreamIsCapturing), {"cuStreamGetCaptureInfo", 11030, (void *)capture_info_2},
    {"cuStreamGetCaptureInfo", 12030, (void *)capture_info_3},
    {"cuStreamGetCtx", 9020, (void *)cuStreamGetCtx}, FUNCTION(cuGraphInstantiateWithParams), FUNCTION(cuGraphLaunch),
    FUNCTION(cuGraphDestroy), FUNCTION(cuGraphExecDestroy), FUNCTION(cuUserObjectCreate),
    FUNCTION(cuGraphRetainUserObject), FUNCTION(cuGraphReleaseUserObject), FUNCTION(cuEventCreate), FUNCTION(cuEventRecord),
    FUNCTION(cuEventSynchronize), FUNCTION(cuEventQuery), FUNCTION(cuEventElapsedTime), FUNCTION(cuEventDestroy),
    FUNCTION(cuLibraryLoadData), FUNCTION(cuLibraryUnload), FUNCTION(cuLibraryGetKernel),
    FUNCTION(cuKernelGetLibrary), FUNCTION(cuKernelGetFunction), FUNCTION(cuFuncGetAttribute),
    FUNCTION(cuKernelGetAttribute), FUNCTION(cuLaunchKernelEx), FUNCTION(cuGetErrorName), FUNCTION(cuGetErrorString),
    FUNCTION(cuGetExportTable),
};

/* Where a table's line has a version, other versions of the function take other arguments, and are not here. */
CUresult cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags,
                          CUdriverProcAddressQueryResult *status) {
    (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (!strcmp(functions[i].name, symbol) && (!functions[i].version || functions[i].version == version))
            *function = functions[i].function;
    if (status)
        *status = *function ? CU_GET_PROC_ADDRESS_SUCCESS : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    return *function ? CUDA_SUCCESS : CUDA_ERROR_NOT_FOUND;
}
