// GGUF's blocks of weights, their scales and minima: what products of rows have in common on all processors.
//
// Layouts are ggml's (ggml-common.h, ggml-quants.c).
#pragma once

#include <algorithm>
#include <vector>

#include "operators_vectors.h"

namespace {

// ggml's numbers of the encodings.
enum Kind : int64_t {
  Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q2_K = 10, Q3_K = 11, Q4_K = 12, Q5_K = 13, Q6_K = 14,
  IQ4_NL = 20, IQ4_XS = 23
};

constexpr float SMALLEST = 1e-34f;  // of which 32767 can be divided

int64_t numbers_of(int64_t kind) { return kind <= Q8_0 || kind == IQ4_NL ? 32 : 256; }

// ------------------------------------------------------------------------------------------------- scales and minima

inline int32_t four_bytes(const uint8_t* at) {
  int32_t bits;
  std::memcpy(&bits, at, 4);
  return bits;
}

inline float half_at(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  return _cvtsh_ss(bits);
}

// A block's float16 scale and the float16 behind it, for all eight lanes each.
inline void scale_and_minimum(const uint8_t* at, __m256* scale, __m256* minimum) {
  const __m128 both = _mm_cvtph_ps(_mm_cvtsi32_si128(four_bytes(at)));
  *scale = _mm256_broadcastss_ps(both);
  *minimum = _mm256_broadcastss_ps(_mm_movehdup_ps(both));
}

inline __m256 eight_numbers(int64_t bytes, int offset) {
  return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes)), _mm256_set1_epi32(offset)));
}

// 8 scales and 8 minima of 6 bits, in 12 bytes.
inline void six_bits(const uint8_t* bytes, __m256* scales, __m256* minima) {
  const uint32_t first = four_bytes(bytes), second = four_bytes(bytes + 4), third = four_bytes(bytes + 8);
  const auto eight = [](uint64_t low, uint64_t high) { return eight_numbers(high << 32 | low, 0); };
  *scales = eight(first & 0x3f3f3f3f, (third & 0x0f0f0f0f) | (first >> 2 & 0x30303030));
  *minima = eight(second & 0x3f3f3f3f, (third >> 4 & 0x0f0f0f0f) | (second >> 2 & 0x30303030));
}

// Sixteen scales of 6 bits, less 32, in 12 bytes: four bits of each in eight bytes, the upper two in four.
inline void six_bits_of_q3(const uint8_t* bytes, __m256* scales) {
  uint64_t low;
  std::memcpy(&low, bytes, 8);
  const uint64_t upper = static_cast<uint32_t>(four_bytes(bytes + 8));
  const auto two = [](uint64_t pairs) { return (pairs & 0x03030303) << 4; };
  for (int half = 0; half < 2; ++half)
    scales[half] = eight_numbers((low >> 4 * half & 0x0f0f0f0f0f0f0f0f) | two(upper >> 4 * half) | two(upper >> (4 * half + 2)) << 32, -32);
}

// Eight scales of 6 bits, less 32: of each four bits, one after the other, and two upper ones before them; times the
// block's own.
inline __m256 scales_of_iq4_xs(const uint8_t* at) {
  const uint64_t low = _pdep_u64(static_cast<uint32_t>(four_bytes(at + 4)), 0x0f0f0f0f0f0f0f0f);
  const uint64_t upper = _pdep_u64(static_cast<uint32_t>(four_bytes(at)) >> 16, 0x3030303030303030);
  return _mm256_mul_ps(eight_numbers(low | upper, -32), _mm256_set1_ps(half_at(at)));
}

}  // namespace
