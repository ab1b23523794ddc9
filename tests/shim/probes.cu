/* probes.cu: kernels that are wrong in one way each, and their right twins: what the shim is there
 * to find. Two blocks of 64 threads; `me` is the thread's number among all, its element of in and
 * out. */
#include "ops/device/cuda.h"
#include "tests/shim/probes.h"
#include "tests/shim/shim_test.h"

#define PROBE(name) static void name(bool right, const struct probe_memory *m)
#define THREAD()                                                                                   \
    const int t = threadIdx.x, lane = t % 32, me = (int)blockIdx.x * PROBE_THREADS + t;            \
    (void)lane, (void)me, (void)right, (void)m

PROBE(barrier) {
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    s[t] = 0;
    __syncthreads();
    s[t] = m->in[me];
    if (right) __syncthreads();
    m->out[me] = s[63 - t];
}
PROBE(warp_barrier) { /* a warp function orders the lanes of a warp, and only those */
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    s[t] = m->in[me];
    __syncthreads();
    s[t] = 0;
    __syncwarp();
    m->out[me] = s[right ? t ^ 1 : 63 - t];
}
PROBE(shuffle_between) { /* lanes meet, which says nothing of memory */
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    s[t] = -1;
    __syncthreads();
    s[t] = m->in[me];
    if (right) __syncwarp();
    const int other = __shfl_xor_sync(0xffffffffu, t, 1);
    m->out[me] = s[other];
}
PROBE(vote_and_mma_between) {
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    SHARED(u16, tile, 256);
    for (int i = t; i < 256; i += PROBE_THREADS) tile[i] = 0;
    s[t] = -1;
    __syncthreads();
    s[t] = m->in[me];
    if (right) __syncwarp();
    float d[4] = {};
    u32 a[4];
    ldmatrix_x4(a, tile + lane % 16 * 16 + lane / 16 * 8), mma_bf16(d, a, a);
    const int all = __all_sync(0xffffffffu, 1);
    m->out[me] = s[t ^ all] + d[0];
}
PROBE(store_after_shuffle) { /* may be moved up, before another lane's load */
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    s[t] = m->in[me];
    __syncwarp();
    float x = s[t ^ 1];
    x += __shfl_xor_sync(0xffffffffu, x, 2);
    if (right) __syncwarp();
    s[t] = x;
    m->out[me] = x;
}
PROBE(ping_pong) { /* two buffers: one barrier a step */
    THREAD();
    SHARED(float, s, 2 * PROBE_THREADS);
    float x = m->in[me];
    for (int step = 0; step < 6; step++) {
        float *part = s + step % 2 * PROBE_THREADS;
        part[t] = x;
        if (right || step % 3 != 2) __syncthreads();
        x = part[(t + 17) % PROBE_THREADS];
    }
    m->out[me] = x;
}
PROBE(one_buffer) { /* what the slow still read, the fast overwrite */
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    float x = m->in[me];
    for (int step = 0; step < 6; step++) {
        s[t] = x;
        __syncthreads();
        x = s[(t + 17) % PROBE_THREADS];
        if (right) __syncthreads();
    }
    m->out[me] = x;
}
PROBE(many_readers) { /* of which only some are ordered before the writer */
    THREAD();
    SHARED(float, s, 1);
    if (!t) *s = m->in[me];
    __syncthreads();
    m->out[me] = *s;
    if (right) __syncthreads();
    __syncwarp();
    if (t == 63) *s = -1;
}
PROBE(copy_too_early) { /* a copy may arrive as soon as it is started */
    THREAD();
    SHARED(float, s, 4 * PROBE_THREADS);
    for (int i = 0; i < 4; i++) s[4 * t + i] = (float)me;
    __syncthreads();
    if (!right) copy_async16(s + 4 * t, m->in, true);
    const float x = s[4 * (63 - t)];
    __syncthreads();
    if (right) copy_async16(s + 4 * t, m->in, true);
    copy_async_commit(), copy_async_wait<0>();
    m->out[me] = x;
}
PROBE(copy_over_readers) {
    THREAD();
    SHARED(float, s, 4 * PROBE_THREADS);
    for (int i = 0; i < 4; i++) s[4 * t + i] = (float)me;
    __syncthreads();
    const float x = s[4 * (63 - t)];
    if (right) __syncthreads();
    copy_async16(s + 4 * t, m->in, true), copy_async_commit();
    __syncthreads(); /* too late */
    copy_async_wait<0>();
    m->out[me] = x;
}
PROBE(younger_copy) {
    THREAD();
    SHARED(float, s, 8 * PROBE_THREADS);
    float *mine = s + 8 * t;
    mine[4] = -1;
    copy_async16(mine, m->in, true), copy_async_commit();
    copy_async16(mine + 4, m->in, true), copy_async_commit();
    if (right)
        copy_async_wait<0>();
    else
        copy_async_wait<1>();
    m->out[me] = mine[4];
    copy_async_wait<0>();
}
PROBE(past_shared) {
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    s[t + !right] = 0;
}
PROBE(half_meets_half) {
    THREAD();
    if (right || lane < 16)
        __syncwarp();
    else
        (void)__ballot_sync(0xffffffffu, 1);
}
PROBE(past_the_end) {
    THREAD();
    m->out[me + !right] = 0;
}
PROBE(across_the_end) {
    THREAD();
    SHARED(float, s, 4 * PROBE_THREADS);
    copy_async16(s + 4 * t, m->odd + (right ? 120 : 124), true);
    copy_async_commit(), copy_async_wait<0>();
}
PROBE(alignment) {
    THREAD();
    if (me == 0) *(float2 *)(m->out + !right) = make_float2(0, 0);
}
PROBE(unwritten_shared) {
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    if (right || t != 5) s[t] = 0;
    __syncthreads();
    m->out[me] = s[t];
}
PROBE(unwritten_device) {
    THREAD();
    m->out[me] = right ? m->in[me] : m->raw[me];
}
PROBE(blocks_write) {
    THREAD();
    m->out[right ? me : t] = 0;
}
PROBE(blocks_read) { /* what another block of the launch writes */
    THREAD();
    const float x = m->out[right ? me : PROBE_FLOATS - 1 - me]; /* 0 before */
    m->out[me] = x + m->in[me];
}
PROBE(deadlock) { /* half a warp at one place, half at another */
    THREAD();
    if (!right && lane < 16)
        __syncwarp();
    else
        __syncthreads();
    m->out[me] = 0;
}
PROBE(half_a_warp) {
    THREAD();
    m->out[me] = (float)__ballot_sync(right ? 0xffffffffu : 0xffffu, 1);
}
PROBE(host_memory) {
    THREAD();
    m->out[me] = right ? m->in[me] : m->host[me];
}
PROBE(no_wait) {
    THREAD();
    SHARED(float, s, 4 * PROBE_THREADS);
    copy_async16(s + 4 * t, m->in, true);
    copy_async_commit();
    if (right) copy_async_wait<0>();
    m->out[me] = s[4 * t + 1];
}
PROBE(wait_of_another) { /* the wait is for one's own copies */
    THREAD();
    SHARED(float, s, 4 * PROBE_THREADS);
    s[4 * t] = 0;
    __syncthreads();
    copy_async16(s + 4 * t, m->in + 4, true);
    copy_async_commit(), copy_async_wait<0>();
    if (right) __syncthreads();
    m->out[me] = s[4 * (63 - t)];
}
PROBE(never_waited) {
    THREAD();
    SHARED(float, s, 4 * PROBE_THREADS);
    copy_async16(s + 4 * t, m->in, true);
    copy_async_commit();
    if (right) copy_async_wait<0>();
}
PROBE(atomic) {
    THREAD();
    if (right)
        m->out[me] = 0;
    else
        __atomic_fetch_add((int *)m->out, 1, __ATOMIC_RELAXED);
}

/* ---- right answers ---- */
PROBE(groups_of_copies) { /* the older arrives; that the younger has not: younger_copy */
    THREAD();
    SHARED(float, s, 8 * PROBE_THREADS);
    float *mine = s + 8 * t;
    copy_async16(mine, m->in + 4, true), copy_async_commit();
    copy_async16(mine + 4, m->in + 8, true), copy_async_commit();
    copy_async_wait<1>();
    const bool first = mine[0] == 4 && mine[3] == 7;
    copy_async_wait<0>();
    const bool second = mine[4] == 8;
    copy_async16(mine, m->in, false), copy_async_commit(), copy_async_wait<0>();
    m->out[me] = first && second && mine[0] == 0 && mine[3] == 0;
}
PROBE(counts) {
    THREAD();
    const bool good = __syncthreads_count(t < 37) == 37 && __syncthreads_count(t == 5) == 1 &&
                      __syncthreads_count(0) == 0 && __syncthreads_or(t == 63) &&
                      !__syncthreads_or(0) && __syncthreads_and(1) && !__syncthreads_and(t != 7);
    m->out[me] = good;
}
PROBE(shuffles) {
    THREAD();
    const u32 all = 0xffffffffu;
    bool good = __shfl_sync(all, lane, 3) == 3 && __shfl_xor_sync(all, lane, 5) == (lane ^ 5) &&
                __shfl_up_sync(all, lane, 1) == (lane ? lane - 1 : 0) &&
                __shfl_down_sync(all, lane, 4) == (lane < 28 ? lane + 4 : lane);
    good = __shfl_sync(all, lane, 2, 8) == lane / 8 * 8 + 2 && good;
    good = __shfl_down_sync(all, lane, 1, 16) == (lane % 16 < 15 ? lane + 1 : lane) && good;
    good = __ballot_sync(all, lane % 3 == 0) == 0x49249249u && good;
    good = __any_sync(all, lane == 31) && !__any_sync(all, 0) && good;
    good = __all_sync(all, 1) && !__all_sync(all, lane != 0) && good;
    m->out[me] = good;
}
PROBE(sums) { /* NUMERICS.md 7: both spellings, one tree */
    THREAD();
    float r[16], x = 0;
    for (int i = 0; i < 16; i++) {
        r[i] = 1.0f / (float)(3 * i + 1);
        if (lane % 16 == i) x = r[i];
    }
    const float want = lanes_sum16(r);
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++) r[i] = v16_add(r[i], r[i + half]);
    m->out[me] = lanes_sum(x) == want && r[0] == want;
}
PROBE(own_stores) { /* are seen by their thread at once, by others in time */
    THREAD();
    SHARED(float, s, PROBE_THREADS);
    bool good = true;
    s[t] = -1, m->out[me] = -1;
    for (int i = 0; i < 300; i++) { /* more than stores.cc holds back */
        s[t] += 1, m->out[me] += 1;
        const float x = __shfl_xor_sync(0xffffffffu, s[t], 5);
        good = good && s[t] == (float)i && m->out[me] == (float)i && x == (float)i;
    }
    s[t] = (float)t;
    __syncwarp();
    good = good && s[t ^ 9] == (float)(t ^ 9);
    __syncwarp();
    s[t] = (float)(t + 1);
    __syncthreads();
    good = good && s[63 - t] == (float)(64 - t);
    m->out[me] = good;
}
static float a_at(int i, int k) { return (float)((i * 3 + k * 5) % 7 - 3); }
static float b_at(int k, int n) { return (float)((k * 2 + n * 7) % 5 - 2); }
PROBE(tensor_cores) { /* 16x16 by 16x16 through ldmatrix, plain and transposed, and two mma */
    THREAD();
    SHARED(u16, a, 256);
    SHARED(u16, b, 256);
    for (int i = t; i < 256; i += PROBE_THREADS) {
        a[i] = put_bf16(a_at(i / 16, i % 16));
        b[i] = put_bf16(b_at(i / 16, i % 16));
    }
    __syncthreads();
    const int row = lane % 8 + lane / 8 % 2 * 8, col = lane / 16 * 8;
    u32 x[4], y[4];
    ldmatrix_x4(x, a + 16 * row + col), ldmatrix_x4_trans(y, b + 16 * row + col);
    bool good = true;
    for (int n = 0; n < 2; n++) {
        float d[4] = {1, 2, 3, 4};
        mma_bf16(d, x, y + 2 * n);
        for (int i = 0; i < 4; i++) {
            float want = (float)(i + 1);
            for (int k = 0; k < 16; k++)
                want += a_at(lane / 4 + i / 2 * 8, k) * b_at(k, 8 * n + lane % 4 * 2 + i % 2);
            good = good && d[i] == want;
        }
    }
    m->out[me] = good;
}
PROBE(denormals) { /* flushed, as nvcc -ftz=true has it */
    THREAD();
    const u32 zero = (u32)m->in[0]; /* unknown to the compiler */
    m->out[me] =
        v16_mul(of_bits(0x00800000 + zero), 0.5f) == 0 && v16_add(of_bits(1 + zero), 0) == 0;
}

const struct probe probe_table[] = {
    {"barrier", "with no barrier between", true, barrier},
    {"warp barrier", "with no barrier between", true, warp_barrier},
    {"shuffle between", "with no barrier between, nor __syncwarp", true, shuffle_between},
    {"vote and mma between", "with no barrier between, nor __syncwarp", true, vote_and_mma_between},
    {"store after a shuffle", "with no barrier between", false, store_after_shuffle},
    {"ping-pong, a barrier too few", "with no barrier between", true, ping_pong},
    {"one buffer, one barrier", "with no barrier between", true, one_buffer},
    {"many readers", "with no barrier between", true, many_readers},
    {"copy started too early", "of shared memory", true, copy_too_early},
    {"copy over what is read", "of shared memory", true, copy_over_readers},
    {"younger copy not waited for", "which nobody wrote", true, younger_copy},
    {"past shared memory", "memory that is not the device's", false, past_shared},
    {"half meets half", "in different warp functions", false, half_meets_half},
    {"past the end", "memory that is not the device's", false, past_the_end},
    {"across the end", "past the end of a buffer of 500 bytes", false, across_the_end},
    {"alignment", "not aligned", false, alignment},
    {"unwritten shared memory", "of shared memory, which nobody wrote", true, unwritten_shared},
    {"unwritten device memory", "of a device buffer, which nobody wrote", true, unwritten_device},
    {"blocks that write the same", "with no barrier between", false, blocks_write},
    {"blocks that read each other's", "with no barrier between", true, blocks_read},
    {"deadlock", "threads wait for each other", false, deadlock},
    {"half a warp", "without all 32 lanes", false, half_a_warp},
    {"host memory", "reads memory that is not the device's", false, host_memory},
    {"copy not waited for", "which nobody wrote", true, no_wait},
    {"another's copy", "with no barrier between", true, wait_of_another},
    {"copy never waited for", "ended before its asynchronous copies", false, never_waited},
    {"atomic", "uses an atomic operation", false, atomic},
    {"groups of copies", NULL, false, groups_of_copies},
    {"own stores", NULL, false, own_stores},
    {"__syncthreads_count", NULL, false, counts},
    {"shuffles", NULL, false, shuffles},
    {"sums of lanes", NULL, false, sums},
    {"ldmatrix and mma", NULL, false, tensor_cores},
    {"denormals", NULL, false, denormals},
};
const int probe_count = (int)COUNT(probe_table);

__global__ void probe_kernel(const struct probe *p, bool right, struct probe_memory m) {
    p->body(right, &m);
}
int probe_launch(const struct probe *p, bool right, const struct probe_memory *m, struct err *e) {
    return LAUNCH(e, probe_kernel, PROBE_BLOCKS, PROBE_THREADS, 0, p, right, *m);
}

/* What nvcc would report of the kernels here; of probe_kernel as much as the greediest probe has.
 */
static const bool known = [] {
    static const struct {
        const char *name;
        int registers, fixed;
    } row[] = {{"probe_kernel(probe const*, bool, probe_memory)", 32, 8 * PROBE_THREADS * 4},
               {"fault_kernel(fault_word*, bad, long, long, long)", 16, 0},
               {"idle_kernel(int)", 16, 0},
               {"fixed_kernel(int)", 32, 2000},
               {"greedy_kernel(int)", 100, 0}};
    for (const auto &r : row) shim_kernel_add("tests/shim/probes.cu", r.name, r.registers, r.fixed);
    return true;
}();

__global__ void idle_kernel(int) {}
__global__ void fixed_kernel(int) {
    SHARED(u32, mine, 500);
    DYNAMIC_SHARED(u32, more);
    mine[threadIdx.x] = 1, more[threadIdx.x] = 2;
}
__global__ void greedy_kernel(int) {}
__global__ void stranger_kernel(int) {}
int probe_launch_shape(enum probe_shape kernel, bool opt_in, const int grid[3], const int block[3],
                       int shared, struct err *e) {
    const dim3 g((unsigned)grid[0], (unsigned)grid[1], (unsigned)grid[2]),
        b((unsigned)block[0], (unsigned)block[1], (unsigned)block[2]);
#define EITHER(kernel)                                                                             \
    (opt_in ? LAUNCH(e, kernel, g, b, shared, 0)                                                   \
            : cuda_error(LAUNCH_NOW(kernel, g, b, shared, 0), #kernel, e))
    switch (kernel) {
    case PROBE_IDLE: return EITHER(idle_kernel);
    case PROBE_FIXED: return EITHER(fixed_kernel);
    case PROBE_GREEDY: return EITHER(greedy_kernel);
    default: return EITHER(stranger_kernel);
    }
#undef EITHER
}

__global__ void fault_kernel(struct fault_word *f, enum bad kind, i64 value, i64 at, i64 limit) {
    if (!threadIdx.x) fault_set(f, kind, value, at, limit);
}
int probe_fault(int kind, i64 value, i64 at, i64 limit, struct err *e) {
    return LAUNCH(e, fault_kernel, 1, 32, 0, cuda_fault_word, (enum bad)kind, value, at, limit);
}
