/* A stand-in for NVIDIA's driver (libcuda.so.1) and decoder (libnvcuvid.so.1), for tests of FFmpeg's real path to them.
 *
 * "Device" memory is ordinary memory. The decoder looks at nothing but the order of the pictures: sample (x, y) of
 * picture n is (x + 2 y + 5 n) mod 256 in luma, (3 x + y + 5 n) mod 256 in U and (x + 3 y + 5 n) mod 256 in V, in the
 * upper eight bits where samples have sixteen. STAND_IN_FAILS makes it fail: "device", "decoder", or the number of the
 * picture from which on no surface can be had.
 */
#include <stdlib.h>
#include <string.h>

typedef unsigned long ul; /* as the decoder's interface has it on 64-bit Linux */
typedef unsigned long long devptr;
enum { SUCCESS = 0, INVALID = 1, NO_DEVICE = 100 };

static const char *failing(void) { const char *what = getenv("STAND_IN_FAILS"); return what ? what : ""; }
static int fails(const char *what) { return !strcmp(failing(), what); }

/* What FFmpeg needs to find, and never calls here or needs nothing of. */
#define NOTHING(name) int name(void) { return SUCCESS; }
NOTHING(cuCtxSetLimit) NOTHING(cuMemAllocManaged) NOTHING(cuMemsetD8Async) NOTHING(cuMemcpy) NOTHING(cuMemcpyAsync)
NOTHING(cuMemcpyHtoD_v2) NOTHING(cuMemcpyHtoDAsync_v2) NOTHING(cuMemcpyDtoH_v2) NOTHING(cuMemcpyDtoHAsync_v2)
NOTHING(cuMemcpyDtoD_v2) NOTHING(cuMemcpyDtoDAsync_v2) NOTHING(cuCtxPushCurrent_v2) NOTHING(cuCtxDestroy_v2)
NOTHING(cuDevicePrimaryCtxRetain) NOTHING(cuDevicePrimaryCtxRelease) NOTHING(cuDevicePrimaryCtxSetFlags)
NOTHING(cuDevicePrimaryCtxGetState) NOTHING(cuDevicePrimaryCtxReset) NOTHING(cuStreamCreate) NOTHING(cuStreamQuery)
NOTHING(cuStreamSynchronize) NOTHING(cuStreamDestroy_v2) NOTHING(cuStreamAddCallback) NOTHING(cuEventCreate)
NOTHING(cuEventDestroy_v2) NOTHING(cuEventSynchronize) NOTHING(cuEventQuery) NOTHING(cuEventRecord)
NOTHING(cuLaunchKernel) NOTHING(cuLinkCreate) NOTHING(cuLinkAddData) NOTHING(cuLinkComplete) NOTHING(cuLinkDestroy)
NOTHING(cuModuleLoadData) NOTHING(cuModuleUnload) NOTHING(cuModuleGetFunction) NOTHING(cuModuleGetGlobal)
NOTHING(cuTexObjectCreate) NOTHING(cuTexObjectDestroy) NOTHING(cuGLGetDevices_v2) NOTHING(cuGraphicsGLRegisterImage)
NOTHING(cuGraphicsUnregisterResource) NOTHING(cuGraphicsMapResources) NOTHING(cuGraphicsUnmapResources)
NOTHING(cuGraphicsSubResourceGetMappedArray) NOTHING(cuGraphicsResourceGetMappedPointer_v2) NOTHING(cuArray3DCreate_v2)
NOTHING(cuArrayDestroy) NOTHING(cuvidGetDecodeStatus) NOTHING(cuvidReconfigureDecoder) NOTHING(cuvidUnmapVideoFrame64)
NOTHING(cuvidCtxLockCreate) NOTHING(cuvidCtxLockDestroy) NOTHING(cuvidCtxLock) NOTHING(cuvidCtxUnlock)
NOTHING(cuvidCreateVideoSource) NOTHING(cuvidCreateVideoSourceW) NOTHING(cuvidDestroyVideoSource)
NOTHING(cuvidSetVideoSourceState) NOTHING(cuvidGetVideoSourceState) NOTHING(cuvidGetSourceVideoFormat)
NOTHING(cuvidGetSourceAudioFormat) NOTHING(cuvidCreateVideoParser) NOTHING(cuvidParseVideoData)
NOTHING(cuvidDestroyVideoParser) NOTHING(cuArrayCreate_v2) NOTHING(cuStreamWaitEvent) NOTHING(cuCtxGetCurrent) NOTHING(cuDriverGetVersion)

int cuInit(unsigned flags) { (void)flags; return fails("device") ? NO_DEVICE : SUCCESS; }
int cuDeviceGetCount(int *count) { *count = 1; return SUCCESS; }
int cuDeviceGet(int *device, int index) { *device = index; return index ? INVALID : SUCCESS; }
int cuDeviceGetAttribute(int *value, int what, int device) { (void)what; (void)device; *value = 512; return SUCCESS; }
int cuDeviceGetName(char *name, int length, int device) { (void)device; strncpy(name, "stand-in", length); return SUCCESS; }
int cuDeviceComputeCapability(int *major, int *minor, int device) { (void)device; *major = 9; *minor = 0; return SUCCESS; }
int cuCtxCreate_v2(void **context, unsigned flags, int device) { (void)flags; (void)device; *context = context; return SUCCESS; }
int cuCtxPopCurrent_v2(void **context) { if (context) *context = context; return SUCCESS; }
int cuCtxGetDevice(int *device) { *device = 0; return SUCCESS; }
int cuGetErrorName(int code, const char **name) { *name = code == NO_DEVICE ? "NO_DEVICE" : "INVALID"; return SUCCESS; }
int cuGetErrorString(int code, const char **text) { *text = code == NO_DEVICE ? "no device" : "invalid"; return SUCCESS; }

int cuMemAlloc_v2(devptr *pointer, size_t size) { *pointer = (devptr)malloc(size); return SUCCESS; }
int cuMemFree_v2(devptr pointer) { free((void *)pointer); return SUCCESS; }
int cuMemAllocPitch_v2(devptr *pointer, size_t *pitch, size_t width, size_t height, unsigned unit)
{
    (void)unit;
    *pitch = (width + 511) / 512 * 512;
    return cuMemAlloc_v2(pointer, *pitch * height);
}

struct copy {
    size_t from_x, from_y; int from_kind; const void *from_host; devptr from_device; void *from_array; size_t from_pitch;
    size_t to_x, to_y; int to_kind; void *to_host; devptr to_device; void *to_array; size_t to_pitch;
    size_t width, height;
};
int cuMemcpy2D_v2(const struct copy *c)
{
    const char *from = c->from_kind == 1 ? c->from_host : (const char *)c->from_device;
    char *to = c->to_kind == 1 ? c->to_host : (char *)c->to_device;
    for (size_t row = 0; row < c->height; row++)
        memcpy(to + (c->to_y + row) * c->to_pitch + c->to_x, from + (c->from_y + row) * c->from_pitch + c->from_x, c->width);
    return SUCCESS;
}
int cuMemcpy2DAsync_v2(const struct copy *c, void *stream) { (void)stream; return cuMemcpy2D_v2(c); }

struct caps {
    int codec, chroma; unsigned bits_above_8, reserved[3];
    unsigned char supported, engines; unsigned short formats; unsigned most_width, most_height, most_blocks;
    unsigned short least_width, least_height;
};
int cuvidGetDecoderCaps(struct caps *caps)
{
    caps->supported = caps->engines = 1;
    caps->formats = 15;
    caps->most_width = caps->most_height = 8192;
    caps->most_blocks = 1 << 20;
    caps->least_width = caps->least_height = 16;
    return SUCCESS;
}

struct created {
    ul width, height, surfaces; int codec, chroma; ul flags, bits_above_8, intra, most_width, most_height, reserved;
    short shown[4]; int format, deinterlace; ul to_width, to_height;
};
struct decoder { int width, height, bytes; size_t pitch; int decoded, number[64]; unsigned char *surface[64]; };
int cuvidCreateDecoder(struct decoder **made, const struct created *wanted)
{
    if (fails("decoder")) return INVALID;
    struct decoder *d = calloc(1, sizeof *d);
    d->width = wanted->to_width;
    d->height = wanted->to_height;
    d->bytes = wanted->format == 1 ? 2 : 1; /* 0 is NV12, 1 is P016 */
    d->pitch = (d->width * d->bytes + 511) / 512 * 512;
    *made = d;
    return SUCCESS;
}
int cuvidDestroyDecoder(struct decoder *d)
{
    for (int i = 0; i < 64; i++) free(d->surface[i]);
    free(d);
    return SUCCESS;
}

struct picture { int width_in_blocks, height_in_blocks, surface; };
int cuvidDecodePicture(struct decoder *d, const struct picture *picture)
{
    const char *last = failing();
    if (*last >= '0' && *last <= '9' && d->decoded >= atoi(last)) return INVALID;
    d->number[picture->surface] = d->decoded++;
    return SUCCESS;
}
static void put(const struct decoder *d, unsigned char *row, int at, int value)
{
    row[at * d->bytes] = d->bytes == 2 ? 0 : value;
    if (d->bytes == 2) row[at * 2 + 1] = value;
}
int cuvidMapVideoFrame64(struct decoder *d, int index, devptr *pointer, unsigned *pitch, void *how)
{
    (void)how;
    int n = d->number[index], half = (d->height + 1) / 2;
    if (!d->surface[index]) d->surface[index] = malloc(d->pitch * (d->height + half));
    for (int y = 0; y < d->height; y++)
        for (int x = 0; x < d->width; x++) put(d, d->surface[index] + y * d->pitch, x, x + 2 * y + 5 * n);
    for (int y = 0; y < half; y++)
        for (int x = 0; x < (d->width + 1) / 2; x++) {
            unsigned char *row = d->surface[index] + (d->height + y) * d->pitch;
            put(d, row, 2 * x, 3 * x + y + 5 * n);
            put(d, row, 2 * x + 1, x + 3 * y + 5 * n);
        }
    *pointer = (devptr)d->surface[index];
    *pitch = d->pitch;
    return SUCCESS;
}
