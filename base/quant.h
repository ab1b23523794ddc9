/* quant.h: numbers of a few bits with a scale per block: what checkpoints hold and products decode
 * (quant.c, quant_cpu.c, blocks.c). A public header of base.
 *
 * 4 bits, as bitsandbytes stores them (Dettmers et al., 2023): a matrix is a row of values; each
 * block (64, say; the last may be short; a block may cross rows) has its largest magnitude, absmax;
 * a value is the entry of a 16-entry table nearest to value * (1 / absmax). Two codes a byte, the
 * first in the high half; half a byte left over holds the code of zero. It decodes to table *
 * absmax in f32, rounded once to the dtype it is wanted in. Double: absmax itself in 8 bits: absmax
 * less its mean, in blocks of 256, by the signed map below; decodes to map * absmax2, rounded, +
 * mean, rounded.
 *
 * 8 bits: the same with blocks of 256 values and a map of 256 entries, dense near zero (Dettmers,
 * 2015): of optimizer states. Nearest entry; of two equally near the lower.
 *
 * All functions give the same bits on every instruction set (threads in isa_float_mode). */
#ifndef HONE_QUANT_H
#define HONE_QUANT_H

#include "base/base.h"

enum quant4 { QUANT_NF4, QUANT_FP4, QUANT4_COUNT };
extern const char *const quant4_name[QUANT4_COUNT]; /* "nf4", "fp4" */
extern const float quant4_code[QUANT4_COUNT][16];

/* A matrix of 4-bit codes. Block b of 2^shift values has the scale absmax[b], or, if absmax2 is
 * there, code[16 + absmax_u8[b]] * absmax2[b >> shift2] + code[272]. */
enum { QUANT_TABLE = 16, QUANT_TABLE_DOUBLE = 16 + 256 + 1, QUANT_BLOCK2 = 256 };
struct quant {
    const void *absmax;   /* f32, or u8 */
    const float *code;    /* the table [16]; double: then the map [256] and the mean */
    const float *absmax2; /* NULL: not double */
    int shift, shift2;
};
float quant_scale(const struct quant *q, i64 block);

/* to[i] = value at + i of the codes in `packed`, f32 or, `is_bf16`, bf16. */
#define X(isa)                                                                                     \
    void quant_decode_##isa(void *to, const struct quant *q, const u8 *packed, i64 at, i64 count,  \
                            bool is_bf16);                                                         \
    void quant4_encode_##isa(enum quant4 type, u8 *packed, float *absmax, const void *from,        \
                             bool is_bf16, i64 count, i64 block);
ISA_LIST(X)
#undef X
void quant_decode(void *to, const struct quant *q, const u8 *packed, i64 at, i64 count,
                  bool is_bf16);
/* `count` values, f32 or bf16, from the start of a block on: (count + 1) / 2 bytes of codes and one
 * absmax for each block. A large array can be cut at multiples of the block size. */
void quant4_encode(enum quant4 type, u8 *packed, float *absmax, const void *from, bool is_bf16,
                   i64 count, i64 block);
/* absmax -> codes, absmax2 [ceil(count / 256)], and the mean and map into code[16..272]. */
void quant_double(u8 *codes, float *absmax2, float code[QUANT_TABLE_DOUBLE], const float *absmax,
                  i64 count);

void quant8_map(float map[256], bool has_sign); /* ascending; has_sign: -0.993 to 1, else 0 to 1 */
/* The code of x in [-1, 1]: how many of the 255 middles between neighbours are below x. */
void quant8_middles(float middle[255], const float map[256]);
u8 quant8_nearest(const float middle[255], float x);
void quant8_encode(u8 *codes, float *absmax, const float *from, i64 count, i64 block,
                   const float map[256]);

/* FP8 (Micikevicius et al., 2022): e4m3fn has no infinity, NaN at 0x7f, 448 at most; e5m2 is the
 * upper half of f16. Encoding rounds to nearest even; e4m3fn clamps to 448, e5m2 goes to infinity.
 */
enum fp8 { FP8_E4M3, FP8_E5M2 };
float fp8_to_f32(u8 code, enum fp8 type);
u8 fp8_of_f32(float x, enum fp8 type);
/* Row `row` of a matrix of `cols` e4m3fn codes with one f32 scale per 128 x 128 tile (DeepSeek V3's
 * weight_scale_inv [ceil(rows / 128), ceil(cols / 128)]): to[i] = code * scale in f32. */
void fp8_block_row(float *to, const u8 *codes, const float *scale_inv, i64 row, i64 cols);
/* MXFP4 (OCP Microscaling 1.0): 32 e2m1 codes, the first in the low half of a byte, with one
 * power of two, 2^(scale - 127). */
void mxfp4_block(float to[32], const u8 codes[16], u8 scale);
/* Row-wise int8 (LLM.int8): to[i] = code * absmax / 127. */
void int8_row(float *to, const signed char *codes, float absmax, i64 cols);

/* `n` blocks of GGUF's types from f32 (blocks.c): 32 elements each, of the K types 256. */
typedef void blocks_encode(const float *from, i64 n, u8 *to);
blocks_encode blocks_q8_0, blocks_q4_0, blocks_q4_1, blocks_q5_0, blocks_q5_1, blocks_q4_k,
    blocks_q5_k, blocks_q6_k;

#endif
