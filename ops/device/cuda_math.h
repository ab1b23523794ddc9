/* cuda_math.h: base's f64 exp and log, and its random numbers, in kernels: f64_exp, f64_log and
 * philox_f64 give the bits of m_exp, m_log and rng_uniform_f64. */
#ifndef HONE_CUDA_MATH_H
#define HONE_CUDA_MATH_H

#include "ops/device/cuda.h"

#define M_FN DEVICE
#include "base/math_f64.h"
#include "base/philox.h"

#endif
