// 128 weights of a GGUF file's blocks as bytes, in two 512-bit vectors, with their scales and minima: see operators_wide.h.
#pragma once

#include <algorithm>
#include <array>

#include "operators_scales.h"

namespace {

inline __m512i load512(const void* from) { return _mm512_loadu_si512(from); }

// Bytes in the order of activations, and for each 32 (four lanes) or each 16 (eight lanes) a scale and a minimum.
struct Weights {
  __m512i of[2];
  __m256 scales, minima;
};

// Whether a scale serves 16 numbers instead of 32.
constexpr bool in_sixteens(int64_t kind) { return kind == Q2_K || kind == Q3_K || kind == Q6_K; }

// What all bytes are too large by, as a power of two; 0 where minima say it, or nothing is to be taken off.
constexpr int offset_bits(int64_t kind) {
  return kind == Q4_0 ? 3 : kind == Q5_0 ? 4 : kind == Q8_0 || kind == IQ4_NL || kind == IQ4_XS ? 7 : 0;
}

constexpr bool has_minima(int64_t kind) { return offset_bits(kind) == 0; }

constexpr bool of_256(int64_t kind) { return kind >= Q2_K && kind != IQ4_NL; }

constexpr int64_t bytes_of_block(int64_t kind) {
  switch (kind) {
    case Q4_0:
    case IQ4_NL: return 18;
    case Q4_1: return 20;
    case Q5_0: return 22;
    case Q5_1: return 24;
    case Q8_0: return 34;
    case Q2_K: return 84;
    case Q3_K: return 110;
    case Q4_K: return 144;
    case Q5_K: return 176;
    case Q6_K: return 210;
    default: return 136;  // IQ4_XS
  }
}

// The low halves of all bytes, and the high ones.
inline __m512i low_half(__m512i bytes) { return _mm512_and_si512(bytes, _mm512_set1_epi8(15)); }
inline __m512i high_half(__m512i bytes) { return low_half(_mm512_srli_epi16(bytes, 4)); }

// 128 more than what the four bits of IQ4 stand for.
inline __m512i of_table(__m512i nibbles) {
  const __m128i table = _mm_setr_epi8(1, 24, 45, 63, 79, 93, 106, 118, -127, -115, -103, -90, -75, -59, -39, -15);
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), nibbles);
}

// Vectors of two groups of 32 each, the second and the fourth quarter behind the first and third: as activations are.
inline void in_order(__m512i low, __m512i high, Weights* found) {
  found->of[0] = _mm512_shuffle_i32x4(low, high, _MM_SHUFFLE(2, 0, 2, 0));
  found->of[1] = _mm512_shuffle_i32x4(low, high, _MM_SHUFFLE(3, 1, 3, 1));
}

// Four blocks of 32 are two vectors of 16-bit words, from their beginning and from `SECOND` bytes behind it, which meet or
// overlap. Where word `i` of the bytes from `at` on in block `b` is found in the two:
constexpr uint16_t word_at(int64_t offset, int64_t second) {
  return static_cast<uint16_t>(offset + 2 <= 64 ? offset / 2 : 32 + (offset - second) / 2);
}

template <int64_t BYTES, int64_t SECOND>
struct Words {
  alignas(64) std::array<uint16_t, 32> data{}, heads{}, fifths{};

  constexpr Words(int64_t data_at) {
    for (int block = 0; block < 4; ++block) {
      for (int word = 0; word < 8; ++word) data[8 * block + word] = word_at(block * BYTES + data_at + 2 * word, SECOND);
      for (int word = 0; word < 2; ++word) {
        heads[4 * word + block] = word_at(block * BYTES + 2 * word, SECOND);
        fifths[4 * word + block] = word_at(block * BYTES + data_at - 4 + 2 * word, SECOND);
      }
    }
  }
};

// The 128 weights in four blocks of 32, or in fewer, the rest 0.
template <int64_t KIND>
inline Weights of_four(const uint8_t* at, int64_t blocks) {
  constexpr int64_t BYTES = bytes_of_block(KIND), SECOND = 4 * BYTES - (KIND == Q8_0 ? 68 : 64);
  constexpr bool FIVE = KIND == Q5_0 || KIND == Q5_1, MINIMUM = KIND == Q4_1 || KIND == Q5_1;
  static constexpr Words<BYTES, SECOND> words((MINIMUM ? 4 : 2) + (FIVE ? 4 : 0));
  const int64_t bytes = blocks * BYTES;  // that are there
  const auto there = [&](int64_t from) -> __mmask32 {
    return blocks == 4 ? ~0u : bytes <= from ? 0 : _bzhi_u32(~0u, static_cast<uint32_t>((bytes - from) / 2));
  };
  const __m512i first = _mm512_maskz_loadu_epi16(there(0), at),
                second = _mm512_maskz_loadu_epi16(there(SECOND), at + SECOND);
  const auto picked = [&](const std::array<uint16_t, 32>& places) {
    return _mm512_permutex2var_epi16(first, load512(places.data()), second);
  };
  Weights found;
  const __m256 heads = _mm256_cvtph_ps(_mm512_castsi512_si128(picked(words.heads)));
  found.scales = heads;
  found.minima = _mm256_castps128_ps256(_mm256_extractf128_ps(heads, 1));
  if (KIND == Q8_0) {
    const auto two = [&](int block) {
      const auto one = [&](int b) { return _mm256_maskz_loadu_epi8(b < blocks ? ~0u : 0, at + b * BYTES + 2); };
      return _mm512_inserti64x4(_mm512_castsi256_si512(one(block)), one(block + 1), 1);
    };
    in_order(two(0), two(2), &found);
    for (auto& numbers : found.of) numbers = _mm512_xor_si512(numbers, _mm512_set1_epi8(-128));
    return found;
  }
  const __m512i data = picked(words.data);
  found.of[0] = low_half(data), found.of[1] = high_half(data);
  if (KIND == IQ4_NL) found.of[0] = of_table(found.of[0]), found.of[1] = of_table(found.of[1]);
  if (FIVE) {
    const __m128i fifths =
        _mm512_castsi512_si128(picked(words.fifths));  // a bit a number: of the first halves, of the second
    const __m512i sixteen = _mm512_set1_epi8(16);
    found.of[0] = _mm512_mask_add_epi8(found.of[0], _cvtu64_mask64(_mm_cvtsi128_si64(fifths)), found.of[0], sixteen);
    found.of[1] = _mm512_mask_add_epi8(found.of[1], _cvtu64_mask64(_mm_extract_epi64(fifths, 1)), found.of[1], sixteen);
  }
  return found;
}

inline __m256 four_of(__m256 eight, int half) {
  return half ? _mm256_castps128_ps256(_mm256_extractf128_ps(eight, 1)) : eight;
}

inline __m512i twice(const uint8_t* at) { return _mm512_broadcast_i64x4(load(at)); }

// The lower half's lanes and the upper half's, of 16 bits or bytes.
inline __m512i halves16(int lower, int upper) {
  return _mm512_inserti64x4(_mm512_set1_epi16(lower), _mm256_set1_epi16(upper), 1);
}
inline __m512i halves8(int lower, int upper) {
  return _mm512_inserti64x4(_mm512_set1_epi8(lower), _mm256_set1_epi8(upper), 1);
}

// 128 weights of a block of 256: its first half or its second.
template <int64_t KIND, int HALF>
inline Weights of_half(const uint8_t* at) {
  Weights found;
  if (KIND == IQ4_XS) {
    found.scales = four_of(scales_of_iq4_xs(at), HALF);
    found.minima = _mm256_setzero_ps();
    const __m512i data = load512(at + 8 + 64 * HALF);
    found.of[0] = of_table(low_half(data)), found.of[1] = of_table(high_half(data));
  } else if (KIND == Q4_K || KIND == Q5_K) {
    __m256 factors, minima, scale, minimum;
    six_bits(at + 4, &factors, &minima);
    scale_and_minimum(at, &scale, &minimum);
    found.scales = four_of(_mm256_mul_ps(factors, scale), HALF);
    found.minima = four_of(_mm256_mul_ps(minima, _mm256_sub_ps(_mm256_setzero_ps(), minimum)), HALF);
    const __m512i data = load512(at + (KIND == Q5_K ? 48 : 16) + 64 * HALF);
    __m512i low = low_half(data), high = high_half(data);  // groups 0 and 2, groups 1 and 3
    if (KIND == Q5_K) {
      const __m512i fifths = twice(at + 16), sixteen = _mm512_set1_epi8(16);
      const int own = 1 << 4 * HALF;
      low = _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(fifths, halves8(own, own << 2)), low, sixteen);
      high = _mm512_mask_add_epi8(high, _mm512_test_epi8_mask(fifths, halves8(own << 1, own << 3)), high, sixteen);
    }
    const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                  second = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    found.of[0] = _mm512_permutex2var_epi64(low, first, high), found.of[1] = _mm512_permutex2var_epi64(low, second, high);
  } else {
    __m256 scale, minimum = _mm256_setzero_ps();
    if (KIND == Q2_K)
      scale_and_minimum(at + 80, &scale, &minimum);
    else
      scale = _mm256_set1_ps(half_at(at + bytes_of_block(KIND) - 2));
    __m512i low, high;  // groups 0 and 1, groups 2 and 3
    if (KIND == Q6_K) {
      found.scales =
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 192 + 8 * HALF))));
      const __m512i data = load512(at + 64 * HALF), upper = twice(at + 128 + 32 * HALF), two = _mm512_set1_epi8(48);
      low = _mm512_or_si512(low_half(data), _mm512_and_si512(_mm512_sllv_epi16(upper, halves16(4, 2)), two));
      high = _mm512_or_si512(high_half(data), _mm512_and_si512(_mm512_srlv_epi16(upper, halves16(0, 2)), two));
    } else {
      const __m512i data = twice(at + (KIND == Q2_K ? 16 : 32) + 32 * HALF), three = _mm512_set1_epi8(3);
      low = _mm512_and_si512(_mm512_srlv_epi16(data, halves16(0, 2)), three);
      high = _mm512_and_si512(_mm512_srlv_epi16(data, halves16(4, 6)), three);
      if (KIND == Q2_K) {
        int64_t bytes;
        std::memcpy(&bytes, at + 8 * HALF, 8);
        found.scales = eight_numbers(bytes & 0x0f0f0f0f0f0f0f0f, 0);
        found.minima =
            _mm256_mul_ps(eight_numbers(bytes >> 4 & 0x0f0f0f0f0f0f0f0f, 0), _mm256_sub_ps(_mm256_setzero_ps(), minimum));
      } else {
        __m256 of_both[2];
        six_bits_of_q3(at + 96, of_both);
        found.scales = of_both[HALF];
        const __m512i upper = twice(at), four = _mm512_set1_epi8(4);
        const int own = 1 << 4 * HALF;
        low = _mm512_mask_add_epi8(low, _mm512_test_epi8_mask(upper, halves8(own, own << 1)), low, four);
        high = _mm512_mask_add_epi8(high, _mm512_test_epi8_mask(upper, halves8(own << 2, own << 3)), high, four);
      }
    }
    found.scales = _mm256_mul_ps(found.scales, scale);
    if (KIND != Q2_K) found.minima = _mm256_mul_ps(found.scales, _mm256_set1_ps(KIND == Q3_K ? -4 : -32));
    in_order(low, high, &found);
  }
  return found;
}

// Weights 128 · u to 128 · (u + 1) of a row of `blocks` blocks; those that are not there are 0.
template <int64_t KIND>
inline Weights weights_of(const uint8_t* row, int64_t u, int64_t blocks) {
  if constexpr (of_256(KIND)) {
    const uint8_t* block = row + u / 2 * bytes_of_block(KIND);
    return u % 2 ? of_half<KIND, 1>(block) : of_half<KIND, 0>(block);
  } else {
    return of_four<KIND>(row + 4 * u * bytes_of_block(KIND), std::min<int64_t>(4, blocks - 4 * u));
  }
}

}  // namespace
