// The product of rows of float32 with a matrix of floats as it lies in a file: float32, float16 or bfloat16.
//
// Nothing is rounded: a weight becomes float32 when it is multiplied. For many rows some rows of the matrix are written
// out as float32 first, which then serve them all. Each product is summed in the same order, however many rows there are.
#pragma once

#include <algorithm>
#include <vector>

#include "operators_vectors.h"

namespace {

// ggml's numbers of the encodings.
enum Float : int64_t { F32 = 0, F16 = 1, BF16 = 30 };

constexpr int64_t FEW_ROWS = 8;  // for which nothing is written out
constexpr int64_t WRITTEN = 131072;  // bytes written out at a time, a part of a core's second cache

bool is_float(int64_t kind) { return kind == F32 || kind == F16 || kind == BF16; }

constexpr int64_t bytes_of(int64_t kind) { return kind == F32 ? 4 : 2; }

template <int64_t KIND>
inline __m256 eight(const uint8_t* at) {
  if (KIND == F32) return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  return KIND == F16 ? _mm256_cvtph_ps(bits) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// Of fewer than eight numbers, the rest are 0.
template <int64_t KIND>
inline __m256 fewer(const uint8_t* at, int64_t count) {
  uint8_t padded[32] = {};
  std::memcpy(padded, at, count * bytes_of(KIND));
  return eight<KIND>(padded);
}

// O rows of a matrix times R rows of activations [R, width], into [R, outputs].
template <int64_t KIND, int O, int R>
inline void products_of(const uint8_t* matrix, int64_t stride, const float* x, int64_t width, float* y, int64_t outputs) {
  __m256 sums[O][R];
  for (auto& row : sums) std::fill(row, row + R, _mm256_setzero_ps());
  const int64_t whole = width / 8 * 8;
  const auto add = [&](const __m256* weights, int r, __m256 values) {
    for (int o = 0; o < O; ++o) sums[o][r] = _mm256_fmadd_ps(weights[o], values, sums[o][r]);
  };
  __m256 weights[O];
  for (int64_t d = 0; d < whole; d += 8) {
    if (R <= 2 && d * bytes_of(KIND) % 64 == 0)  // the next rows: the processor itself foresees one row, not O of them
      for (int o = 0; o < O; ++o)
        _mm_prefetch(reinterpret_cast<const char*>(matrix + (O + o) * stride + d * bytes_of(KIND)), _MM_HINT_T0);
    for (int o = 0; o < O; ++o) weights[o] = eight<KIND>(matrix + o * stride + d * bytes_of(KIND));
    for (int r = 0; r < R; ++r) add(weights, r, _mm256_loadu_ps(x + r * width + d));
  }
  if (const int64_t rest = width - whole; rest > 0) {
    for (int o = 0; o < O; ++o) weights[o] = fewer<KIND>(matrix + o * stride + whole * bytes_of(KIND), rest);
    for (int r = 0; r < R; ++r) add(weights, r, fewer<F32>(reinterpret_cast<const uint8_t*>(x + r * width + whole), rest));
  }
  for (int o = 0; o < O; ++o)
    for (int r = 0; r < R; ++r) y[r * outputs + o] = total(sums[o][r]);
}

// Sums of O by R products are as many as there are registers for.
template <int64_t KIND, int R>
void rows_times(const uint8_t* matrix, int64_t stride, int64_t rows, const float* x, int64_t width, float* y,
                int64_t outputs) {
  constexpr int O = R > 2 ? 3 : 4;
  int64_t out = 0;
  for (; out + O <= rows; out += O) products_of<KIND, O, R>(matrix + out * stride, stride, x, width, y + out, outputs);
  for (; out < rows; ++out) products_of<KIND, 1, R>(matrix + out * stride, stride, x, width, y + out, outputs);
}

// Rows of a matrix times all rows of activations.
template <int64_t KIND>
void all_rows_times(const uint8_t* matrix, int64_t stride, int64_t rows, const float* x, int64_t count, int64_t width,
                    float* y, int64_t outputs) {
  for (int64_t r = 0, together; r < count; r += together) {
    together = std::min<int64_t>(4, count - r);
    const auto run = together == 4   ? rows_times<KIND, 4>
                     : together == 3 ? rows_times<KIND, 3>
                     : together == 2 ? rows_times<KIND, 2>
                                     : rows_times<KIND, 1>;
    run(matrix, stride, rows, x + r * width, width, y + r * outputs, outputs);
  }
}

template <int64_t KIND>
void write_out(const uint8_t* matrix, int64_t stride, int64_t rows, int64_t width, float* to) {
  for (int64_t row = 0; row < rows; ++row, matrix += stride, to += width) {
    int64_t d = 0;
    for (; d + 8 <= width; d += 8) _mm256_storeu_ps(to + d, eight<KIND>(matrix + d * bytes_of(KIND)));
    if (d == width) continue;
    alignas(32) float rest[8];
    _mm256_store_ps(rest, fewer<KIND>(matrix + d * bytes_of(KIND), width - d));
    std::copy_n(rest, width - d, to + d);
  }
}

// Rows of a matrix, bytes `stride` apart, times [count, width], into columns of [count, outputs].
template <int64_t KIND>
void float_products(const uint8_t* matrix, int64_t stride, int64_t rows, const float* x, int64_t count, int64_t width,
                    float* y, int64_t outputs) {
  const bool few = count <= FEW_ROWS, as_it_lies = few || KIND == F32;
  const int64_t tile = std::max<int64_t>(12, (few ? TILE / stride : WRITTEN / 4 / width) / 12 * 12);
  std::vector<float> written(as_it_lies ? 0 : std::min(tile, rows) * width);
  for (int64_t first = 0; first < rows; first += tile) {
    const int64_t part = std::min(tile, rows - first);
    const uint8_t* from = matrix + first * stride;
    if (as_it_lies) {
      all_rows_times<KIND>(from, stride, part, x, count, width, y + first, outputs);
    } else {
      write_out<KIND>(from, stride, part, width, written.data());
      all_rows_times<F32>(reinterpret_cast<const uint8_t*>(written.data()), 4 * width, part, x, count, width, y + first,
                          outputs);
    }
  }
}

}  // namespace
