// The product of a few rows with a GGUF file's blocks as they lie in it.
//
// Blocks hold whole numbers of 4 to 8 bits with a scale for each 16 or 32 of them, some with a minimum.
// A row of activations is written as 16-bit whole numbers with a scale for each 64 of them: an error of at most 1.5e-5
// of the largest of the 64, a hundredth of what rounding to bfloat16 costs. A product is then exact in whole numbers,
// and float32 from there on. The bytes of a block are read as 16-bit lanes, each with an even and an odd byte: shifts and
// masks make lanes of single weights of them, without any shuffle, and the activations are laid out to match, once a row.
//
// Layouts of blocks are ggml's (ggml-common.h, ggml-quants.c). 256-bit vectors (AVX2) everywhere, for most of the time is
// spent waiting for memory; wider processors have an instruction that multiplies and adds at once.
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "operators_vectors.h"

namespace {

// ---------------------------------------------------------------------------------------------- rows of activations

// ggml's numbers of the encodings.
enum Kind : int64_t { Q4_0 = 2, Q4_1 = 3, Q5_0 = 6, Q5_1 = 7, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14 };

constexpr int64_t UNIT = 64;
constexpr float SMALLEST = 1e-34f;  // of which 32767 can be divided
constexpr int64_t AHEAD = 1536;  // bytes, fetched before they are needed where a block is little work

// 64 activations: 4 vectors of 16, in the order in which weights come out of their bytes.
struct Unit {
  alignas(32) int16_t values[UNIT];
  float scale;
};

// A row of activations, and the sums of each 16 and each 32 of them, by which minima are multiplied.
struct Row {
  std::vector<Unit> units;
  std::vector<float> sums16, sums32;
};

int64_t numbers_of(int64_t kind) { return kind >= Q4_K ? 256 : 32; }

// Whether a block of 32 keeps numbers 0 to 15 in the low halves of 16 bytes and 16 to 31 in the high ones, so that a
// vector takes two blocks; in all others 32 bytes are one after the other.
bool in_halves(int64_t kind) { return kind <= Q5_1; }

// 16 numbers rounded to 16 bits: the eight even ones, then the eight odd ones.
inline __m256i rounded_in_two(const float* x, __m256 factor) {
  const auto eight = [&](const float* from) { return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(from), factor)); };
  const __m256i in_order = _mm256_permute4x64_epi64(_mm256_packs_epi32(eight(x), eight(x + 8)), 0b11011000);
  const __m256i parted = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15,  //
                                          0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  return _mm256_permute4x64_epi64(_mm256_shuffle_epi8(in_order, parted), 0b11011000);
}

// The largest of 64 numbers without their signs; one that is no number is the largest. Without its sign a float is in
// order as a whole number too.
inline float largest_of(const float* x) {
  const __m256i unsigned_bits = _mm256_set1_epi32(0x7fffffff);
  __m256i largest = _mm256_setzero_si256();
  for (int i = 0; i < UNIT; i += 8) largest = _mm256_max_epi32(largest, _mm256_and_si256(load(x + i), unsigned_bits));
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(1, 0, 3, 2)));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, _MM_SHUFFLE(2, 3, 0, 1)));
  return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

Row rounded_row(const float* x, int64_t width, bool halves) {
  const int64_t count = (width + UNIT - 1) / UNIT;
  Row row{std::vector<Unit>(count), std::vector<float>(4 * count), std::vector<float>(2 * count)};
  for (int64_t u = 0; u < count; ++u) {
    const float* exact = x + UNIT * u;
    float rest[UNIT] = {};
    if (const int64_t left = width - UNIT * u; left < UNIT) {
      std::copy_n(exact, left, rest);
      exact = rest;
    }
    Unit& unit = row.units[u];
    const float largest = largest_of(exact);
    const __m256 factor = _mm256_set1_ps(largest < SMALLEST ? 0 : 32767 / largest);
    unit.scale = largest / 32767;
    __m256i groups[4], sums[4];
    for (int group = 0; group < 4; ++group) {
      groups[group] = rounded_in_two(exact + 16 * group, factor);
      sums[group] = _mm256_madd_epi16(groups[group], _mm256_set1_epi16(1));
    }
    for (int vector = 0; vector < 4; ++vector) {
      const __m256i first = groups[halves ? vector / 2 : vector / 2 * 2], second = groups[halves ? vector / 2 + 2 : vector / 2 * 2 + 1];
      const __m256i values = vector % 2 ? _mm256_permute2x128_si256(first, second, 0x31) : _mm256_permute2x128_si256(first, second, 0x20);
      _mm256_store_si256(reinterpret_cast<__m256i*>(unit.values + 16 * vector), values);
    }
    const __m256i of_four = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    const __m128i whole = _mm_add_epi32(_mm256_castsi256_si128(of_four), _mm256_extracti128_si256(of_four, 1));
    _mm_storeu_ps(row.sums16.data() + 4 * u, _mm_mul_ps(_mm_cvtepi32_ps(whole), _mm_set1_ps(unit.scale)));
    for (int half = 0; half < 2; ++half)
      row.sums32[2 * u + half] = row.sums16[4 * u + 2 * half] + row.sums16[4 * u + 2 * half + 1];
  }
  return row;
}

// ---------------------------------------------------------------------------------------- a row of blocks times rows

// sum + products of 16 whole numbers, in pairs.
inline __m256i add_products(__m256i sum, __m256i weights, const int16_t* x) {
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
  return _mm256_dpwssd_epi32(sum, weights, load(x));
#else
  return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, load(x)));
#endif
}

inline __m256i products(__m256i weights, const int16_t* x) { return _mm256_madd_epi16(weights, load(x)); }

// 32 products, times a scale of each half of the lanes.
inline __m256 scaled(__m256i sum, __m256 scales, const Unit& unit, __m256 before) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(scales, _mm256_set1_ps(unit.scale)), before);
}

inline float half_at(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  return _cvtsh_ss(bits);
}

// One float16 or two, as they lie.
template <bool TWO>
inline int32_t bits_at(const uint8_t* bytes) {
  std::conditional_t<TWO, int32_t, uint16_t> bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return bits;
}

inline __m128 two_at(const float* from) { return _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(from))); }

// Of 32 bytes, the even ones and the odd ones.
inline __m256i even(__m256i bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi16(0xff)); }
inline __m256i odd(__m256i bytes) { return _mm256_srli_epi16(bytes, 8); }

// Low bits of bytes, and where a bit of `upper` is set, the bit `value` too.
inline __m256i with_upper(__m256i low, __m256i upper, char value) {
  return _mm256_or_si256(low, _mm256_and_si256(upper, _mm256_set1_epi8(value)));
}

// Bits of every byte moved up; bits from a neighbour are for the caller to leave out.
inline __m256i moved_up(__m256i bytes, int by) {
  return by >= 0 ? _mm256_slli_epi16(bytes, by) : _mm256_srli_epi16(bytes, -by);
}

struct Four {
  __m256i of[4];
};

// Of 32 bytes: low halves of the even ones, of the odd ones, high halves of the even ones, of the odd ones.
inline Four nibbles(__m256i bytes) {
  const __m256i mask = _mm256_set1_epi16(15);
  return {{_mm256_and_si256(bytes, mask), _mm256_and_si256(_mm256_srli_epi16(bytes, 8), mask),
           _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask), _mm256_srli_epi16(bytes, 12)}};
}

// Q4_0, Q4_1, Q5_0, Q5_1: two blocks at once, one in each half of a vector.
template <int R, int64_t KIND>
inline void row_in_halves(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  constexpr bool MINIMUM = KIND == Q4_1 || KIND == Q5_1, FIVE = KIND >= Q5_0;
  constexpr int64_t BITS = MINIMUM ? 4 : 2, DATA = BITS + (FIVE ? 4 : 0), BYTES = DATA + 16;
  __m256 sums[R];
  __m128 offsets[R];
  for (int r = 0; r < R; ++r) sums[r] = _mm256_setzero_ps(), offsets[r] = _mm_setzero_ps();
  const __m256i spread = _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2);
  for (int64_t block = 0, u = 0; block < blocks; block += 2, ++u) {
    const uint8_t* first = row + block * BYTES;
    const uint8_t* second = block + 1 < blocks ? first + BYTES : first;  // its activations are 0
    const __m256i bytes = _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(second + DATA),
                                              reinterpret_cast<const __m128i*>(first + DATA));
    Four weights = nibbles(bytes);
    if (FIVE) {
      int32_t low, high;
      std::memcpy(&low, first + BITS, 4);
      std::memcpy(&high, second + BITS, 4);
      const __m256i fifths = _mm256_set_m128i(_mm_set1_epi32(high), _mm_set1_epi32(low));
      const __m256i own = _mm256_set1_epi64x(0x8040201008040201);
      for (int i = 0; i < 2; ++i) {  // bits 0 to 15 of each block, then 16 to 31
        const __m256i spread_to = _mm256_add_epi8(_mm256_set1_epi8(2 * i), _mm256_set_epi64x(0x0101010101010101, 0, 0x0101010101010101, 0));
        const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(fifths, spread_to), own), own);
        const __m256i half = _mm256_and_si256(moved_up(bytes, -4 * i), _mm256_set1_epi8(15));
        const __m256i five = with_upper(half, is_set, 16);
        weights.of[2 * i] = even(five);
        weights.of[2 * i + 1] = odd(five);
      }
    }
    // Scale and minimum of the first, then of the second.
    const __m128 factors = _mm_cvtph_ps(_mm_set_epi32(0, 0, bits_at<MINIMUM>(second), bits_at<MINIMUM>(first)));
    const __m256 scales = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(factors), spread);
    const __m128 minima = MINIMUM ? _mm_shuffle_ps(factors, factors, _MM_SHUFFLE(3, 1, 3, 1))
                                  : _mm_mul_ps(_mm_shuffle_ps(factors, factors, _MM_SHUFFLE(2, 0, 2, 0)),
                                               _mm_set1_ps(FIVE ? -16 : -8));
    for (int r = 0; r < R; ++r) {
      const Unit& unit = x[r].units[u];
      __m256i sum = products(weights.of[0], unit.values);
      for (int i = 1; i < 4; ++i) sum = add_products(sum, weights.of[i], unit.values + 16 * i);
      sums[r] = scaled(sum, scales, unit, sums[r]);
      offsets[r] = _mm_fmadd_ps(minima, two_at(x[r].sums32.data() + 2 * u), offsets[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    y[r] = total(sums[r]) + _mm_cvtss_f32(_mm_add_ss(offsets[r], _mm_shuffle_ps(offsets[r], offsets[r], 1)));
  }
}

template <int R>
inline void row_q8_0(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  __m256 sums[R];
  for (int r = 0; r < R; ++r) sums[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    _mm_prefetch(reinterpret_cast<const char*>(row + block * 34 + AHEAD), _MM_HINT_T0);
    const __m256i bytes = load(row + block * 34 + 2);
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8), odd = _mm256_srai_epi16(bytes, 8);
    const __m256 scale = _mm256_set1_ps(half_at(row + block * 34));
    for (int r = 0; r < R; ++r) {
      const Unit& unit = x[r].units[block / 2];
      const int16_t* values = unit.values + 32 * (block % 2);
      sums[r] = scaled(add_products(products(even, values), odd, values + 16), scale, unit, sums[r]);
    }
  }
  for (int r = 0; r < R; ++r) y[r] = total(sums[r]);
}

// 8 scales and 8 minima of 6 bits, in 12 bytes.
inline void six_bits(const uint8_t* bytes, __m256* scales, __m256* minima) {
  uint32_t packed[3];
  std::memcpy(packed, bytes, 12);
  const auto upper = [](uint32_t word) { return (word >> 2) & 0x30303030; };
  const auto eight = [](uint32_t first, uint32_t second) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_set_epi32(0, 0, second, first)));
  };
  *scales = eight(packed[0] & 0x3f3f3f3f, (packed[2] & 0x0f0f0f0f) | upper(packed[0]));
  *minima = eight(packed[1] & 0x3f3f3f3f, ((packed[2] >> 4) & 0x0f0f0f0f) | upper(packed[1]));
}

template <int R, bool FIVE>
inline void row_q4_or_5_k(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  __m256 sums[R], offsets[R];
  for (int r = 0; r < R; ++r) sums[r] = offsets[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint8_t* at = row + block * (FIVE ? 176 : 144);
    __m256 all_scales, minima;
    six_bits(at + 4, &all_scales, &minima);
    alignas(32) float scales[8];
    _mm256_store_ps(scales, _mm256_mul_ps(all_scales, _mm256_set1_ps(half_at(at))));
    minima = _mm256_mul_ps(minima, _mm256_set1_ps(half_at(at + 2)));
    for (int r = 0; r < R; ++r)
      offsets[r] = _mm256_fmadd_ps(minima, _mm256_loadu_ps(x[r].sums32.data() + 8 * block), offsets[r]);
    const __m256i fifths = FIVE ? load(at + 16) : _mm256_setzero_si256();
    for (int u = 0; u < 4; ++u) {
      const __m256i bytes = load(at + (FIVE ? 48 : 16) + 32 * u);
      Four weights = nibbles(bytes);
      for (int group = 0; FIVE && group < 2; ++group) {  // bit 2u + group of each byte is its fifth
        const __m256i half = _mm256_and_si256(moved_up(bytes, -4 * group), _mm256_set1_epi8(15));
        const __m256i five = with_upper(half, moved_up(fifths, 4 - 2 * u - group), 16);
        weights.of[2 * group] = even(five);
        weights.of[2 * group + 1] = odd(five);
      }
      for (int r = 0; r < R; ++r) {
        const Unit& unit = x[r].units[4 * block + u];
        for (int group = 0; group < 2; ++group) {
          const int16_t* values = unit.values + 32 * group;
          const __m256i sum = add_products(products(weights.of[2 * group], values), weights.of[2 * group + 1], values + 16);
          sums[r] = scaled(sum, _mm256_set1_ps(scales[2 * u + group]), unit, sums[r]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) y[r] = total(_mm256_sub_ps(sums[r], offsets[r]));
}

template <int R>
inline void row_q6_k(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  __m256 sums[R], offsets[R];
  for (int r = 0; r < R; ++r) sums[r] = offsets[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint8_t* at = row + block * 210;
    const __m256 scale = _mm256_set1_ps(half_at(at + 208));
    for (int half = 0; half < 2; ++half) {
      // Eight scales, of 16 numbers each.
      const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 192 + 8 * half));
      const __m256 factors = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)));
      alignas(32) float scales[8];
      _mm256_store_ps(scales, factors);
      for (int r = 0; r < R; ++r)
        offsets[r] = _mm256_fmadd_ps(factors, _mm256_loadu_ps(x[r].sums16.data() + 16 * block + 8 * half), offsets[r]);
      const __m256i lower[2] = {load(at + 64 * half), load(at + 64 * half + 32)}, upper = load(at + 128 + 32 * half);
      for (int group = 0; group < 4; ++group) {  // bits 2 · group and 2 · group + 1 of each byte are its upper two
        const __m256i low = _mm256_and_si256(moved_up(lower[group % 2], group < 2 ? 0 : -4), _mm256_set1_epi8(15));
        const __m256i six = with_upper(low, moved_up(upper, 4 - 2 * group), 48);
        const __m256i weights[2] = {even(six), odd(six)};
        const __m256 both = _mm256_set_m128(_mm_set1_ps(scales[2 * group + 1]), _mm_set1_ps(scales[2 * group]));
        for (int r = 0; r < R; ++r) {
          const Unit& unit = x[r].units[4 * block + 2 * half + group / 2];
          const int16_t* values = unit.values + 32 * (group % 2);
          const __m256i sum = add_products(products(weights[0], values), weights[1], values + 16);
          sums[r] = scaled(sum, both, unit, sums[r]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) y[r] = total(_mm256_fmadd_ps(offsets[r], _mm256_set1_ps(-32), sums[r]));
}

template <int R>
inline void row_of(int64_t kind, const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  switch (kind) {
    case Q4_0: return row_in_halves<R, Q4_0>(row, blocks, x, y);
    case Q4_1: return row_in_halves<R, Q4_1>(row, blocks, x, y);
    case Q5_0: return row_in_halves<R, Q5_0>(row, blocks, x, y);
    case Q5_1: return row_in_halves<R, Q5_1>(row, blocks, x, y);
    case Q8_0: return row_q8_0<R>(row, blocks, x, y);
    case Q4_K: return row_q4_or_5_k<R, false>(row, blocks, x, y);
    case Q5_K: return row_q4_or_5_k<R, true>(row, blocks, x, y);
    case Q6_K: return row_q6_k<R>(row, blocks, x, y);
    default: TORCH_CHECK(false, "no product for encoding ", kind);
  }
}

// Rows of a matrix times R rows of activations.
template <int R>
void rows_of(int64_t kind, const uint8_t* matrix, int64_t stride, int64_t rows, int64_t blocks, const Row* x, float* y,
             int64_t outputs) {
  float found[R];
  for (int64_t out = 0; out < rows; ++out) {
    row_of<R>(kind, matrix + out * stride, blocks, x, found);
    for (int r = 0; r < R; ++r) y[r * outputs + out] = found[r];
  }
}

// Rows of a matrix, bytes `stride` apart, times `count` rows of activations, into columns of [count, outputs].
void block_products(int64_t kind, const uint8_t* matrix, int64_t stride, int64_t rows, const Row* x, int64_t count,
                    int64_t width, float* y, int64_t outputs) {
  const int64_t blocks = width / numbers_of(kind), tile = std::max<int64_t>(1, TILE / stride);
  for (int64_t first = 0; first < rows; first += tile)
    for (int64_t r = 0, together; r < count; r += together) {
      together = std::min<int64_t>(4, count - r);
      const auto run = together == 4 ? rows_of<4> : together == 3 ? rows_of<3> : together == 2 ? rows_of<2> : rows_of<1>;
      run(kind, matrix + first * stride, stride, std::min(tile, rows - first), blocks, x + r, y + r * outputs + first,
          outputs);
    }
}

}  // namespace
