/* A stand-in for NVIDIA's encoder (libnvidia-encode.so.1), for tests of FFmpeg's real path to it; see stand_in_nvidia.c.
 *
 * It writes H.264 whose macroblocks hold the samples as they are (I_PCM), so that every decoder gives back what FFmpeg
 * handed over. STAND_IN_FAILS=encoder makes its opening fail.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 1 };

struct encoder { int width, height, pitch, count; };
struct bits { uint8_t *at; int zeros, used; unsigned held; };

static void put_byte(struct bits *b, unsigned byte)
{
    if (b->zeros == 2 && byte < 4) *b->at++ = 3, b->zeros = 0;
    *b->at++ = byte;
    b->zeros = byte ? 0 : b->zeros + 1;
}
static void put(struct bits *b, int count, unsigned value)
{
    while (count--) {
        b->held = b->held << 1 | (value >> count & 1);
        if (++b->used == 8) put_byte(b, b->held & 255), b->used = 0;
    }
}
static void golomb(struct bits *b, unsigned value)
{
    int length = 0;
    while ((value + 1) >> (length + 1)) length++;
    put(b, length, 0);
    put(b, length + 1, value + 1);
}
static void align(struct bits *b) { while (b->used) put(b, 1, 0); }
static void begin(struct bits *b, int kind)
{
    memcpy(b->at, "\0\0\0\1", 4);
    b->at += 4;
    *b->at++ = kind;
    b->zeros = b->used = 0;
}
static void end(struct bits *b) { put(b, 1, 1); align(b); }

static uint8_t *headers(const struct encoder *e, uint8_t *into)
{
    struct bits b = {into, 0, 0, 0};
    int across = (e->width + 15) / 16, down = (e->height + 15) / 16;
    begin(&b, 0x67);
    put(&b, 8, 66); put(&b, 8, 0); put(&b, 8, 51);
    golomb(&b, 0); golomb(&b, 0); golomb(&b, 2); golomb(&b, 1); put(&b, 1, 0);
    golomb(&b, across - 1); golomb(&b, down - 1); put(&b, 2, 3);
    put(&b, 1, 1);
    golomb(&b, 0); golomb(&b, (across * 16 - e->width) / 2); golomb(&b, 0); golomb(&b, (down * 16 - e->height) / 2);
    put(&b, 1, 0);
    end(&b);
    begin(&b, 0x68);
    golomb(&b, 0); golomb(&b, 0); put(&b, 2, 0); golomb(&b, 0); golomb(&b, 0); golomb(&b, 0); put(&b, 3, 0);
    golomb(&b, 0); golomb(&b, 0); golomb(&b, 0); put(&b, 3, 4);
    end(&b);
    return b.at;
}

static void samples(struct bits *b, const uint8_t *plane, int pitch, int x, int y, int size, int width, int height)
{
    for (int row = y; row < y + size; row++)
        for (int column = x; column < x + size; column++)
            put_byte(b, plane[(row < height ? row : height - 1) * pitch + (column < width ? column : width - 1)]);
}

static uint8_t *picture(struct encoder *e, const uint8_t *luma, uint8_t *into)
{
    struct bits b = {headers(e, into), 0, 0, 0};
    const uint8_t *red = luma + e->pitch * e->height, *blue = red + e->pitch / 2 * (e->height / 2); /* YV12 */
    begin(&b, 0x65);
    golomb(&b, 0); golomb(&b, 7); golomb(&b, 0); put(&b, 4, 0); golomb(&b, e->count++ % 2); put(&b, 2, 0);
    golomb(&b, 0); golomb(&b, 1);
    for (int y = 0; y < e->height; y += 16)
        for (int x = 0; x < e->width; x += 16) {
            golomb(&b, 25);
            align(&b);
            samples(&b, luma, e->pitch, x, y, 16, e->width, e->height);
            samples(&b, blue, e->pitch / 2, x / 2, y / 2, 8, e->width / 2, e->height / 2);
            samples(&b, red, e->pitch / 2, x / 2, y / 2, 8, e->width / 2, e->height / 2);
        }
    end(&b);
    return b.at;
}

static int nothing(void) { return SUCCESS; }
static const char *last_error(void *e) { (void)e; return "stand-in"; }
static int guid_count(void *e, uint32_t *count) { (void)e; *count = 1; return SUCCESS; }
static int guids(void *e, void *into, uint32_t most, uint32_t *count)
{
    (void)e; (void)most;
    memcpy(into, "\x62\x27\xc8\x6b\x63\x4e\xa4\x4c\xaa\x85\x1e\x50\xf3\x21\xf6\xbf", 16);
    *count = 1;
    return SUCCESS;
}
struct guid { uint64_t first, last; };
static int caps(void *e, struct guid codec, void *what, int *value)
{
    (void)e; (void)codec; (void)what;
    *value = 4096;
    return SUCCESS;
}
static int open_session(void *how, void **made)
{
    const char *fails = getenv("STAND_IN_FAILS");
    (void)how;
    if (fails && !strcmp(fails, "encoder")) return NO_DEVICE;
    *made = calloc(1, sizeof(struct encoder));
    return SUCCESS;
}
static int initialize(struct encoder *e, const uint32_t *how)
{
    e->width = how[9]; /* after the version and two GUIDs */
    e->height = how[10];
    e->pitch = (e->width + 255) / 256 * 256;
    return SUCCESS;
}
static int destroy(struct encoder *e) { free(e); return SUCCESS; }
static int free_buffer(void *e, void *buffer) { (void)e; free(buffer); return SUCCESS; }

struct input { uint32_t version, width, height, heap, format, reserved; void *buffer; };
static int create_input(struct encoder *e, struct input *i) { i->buffer = malloc(e->pitch * e->height * 2); return SUCCESS; }
struct locked { uint32_t version, flags; void *buffer, *data; uint32_t pitch; };
static int lock_input(struct encoder *e, struct locked *l) { l->data = l->buffer; l->pitch = e->pitch; return SUCCESS; }

struct coded { uint64_t time; uint32_t size; uint8_t data[]; };
struct output { uint32_t version, size, heap, reserved; void *buffer; };
static int create_output(struct encoder *e, struct output *o)
{
    o->buffer = malloc(sizeof(struct coded) + e->width * e->height * 4 + 65536);
    return SUCCESS;
}
struct handed { uint32_t version, width, height, pitch, flags, index; uint64_t time, duration; void *input; struct coded *output; };
static int encode(struct encoder *e, const struct handed *h)
{
    if (!h->input) return SUCCESS;
    h->output->time = h->time;
    h->output->size = picture(e, h->input, h->output->data) - h->output->data;
    return SUCCESS;
}
struct stream {
    uint32_t version, flags; struct coded *output; void *slices; uint32_t index, status, count, size;
    uint64_t time, duration; void *data; uint32_t kind, structure, quantiser;
};
static int lock_stream(void *e, struct stream *s)
{
    (void)e;
    s->data = s->output->data;
    s->size = s->output->size;
    s->time = s->output->time;
    s->kind = 3; /* IDR */
    s->structure = 1;
    s->quantiser = 20;
    return SUCCESS;
}
struct payload { uint32_t version, room, sps, pps; uint8_t *into; uint32_t *size; };
static int sequence(struct encoder *e, struct payload *p) { *p->size = headers(e, p->into) - p->into; return SUCCESS; }

int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version) { *version = 99 << 4; return SUCCESS; }
int NvEncodeAPICreateInstance(void **list)
{
    void **f = list + 1; /* behind version and reserved */
    for (int i = 0; i < 41; i++) f[i] = (void *)nothing;
    f[1] = (void *)guid_count; f[4] = (void *)guids; f[7] = (void *)caps; f[11] = (void *)initialize;
    f[12] = (void *)create_input; f[13] = f[15] = (void *)free_buffer; f[14] = (void *)create_output;
    f[16] = (void *)encode; f[17] = (void *)lock_stream; f[19] = (void *)lock_input; f[22] = (void *)sequence;
    f[27] = (void *)destroy; f[29] = (void *)open_session; f[37] = (void *)last_error;
    return SUCCESS;
}
