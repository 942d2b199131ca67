// The product of a few rows with a GGUF file's blocks as they lie in it, in 256-bit vectors (AVX2).
//
// Blocks hold whole numbers of 2 to 8 bits with a scale for each 16 or 32 of them, some with a minimum; the four bits of
// IQ4 stand for numbers of eight. A row of activations is written as 16-bit whole numbers with a scale for each 64 of
// them: an error of at most 1.5e-5 of the largest of the 64, a hundredth of what rounding to bfloat16 costs. A product is
// then exact in whole numbers, and float32 from there on. The bytes of a block are read as 16-bit lanes, each with an even
// and an odd byte: shifts and masks make lanes of single weights of them, and the activations are laid out to match, once
// a row.
//
// What holds a product of one row is the number of instructions: scales of activations and of weights are therefore
// multiplied eight at a time, and what is taken off all weights is taken off once, times a sum of activations.
#pragma once

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "operators_scales.h"

namespace {

// ---------------------------------------------------------------------------------------------- rows of activations

constexpr int64_t UNIT = 64;
constexpr int64_t AHEAD = 1536;  // bytes, fetched before they are needed

// 64 activations: 4 vectors of 16, in the order in which weights come out of their bytes; the sums of what stands in
// the same two places of all four, by which an offset of all weights is multiplied; and their scale, eight times.
struct Unit {
  alignas(32) int16_t values[UNIT];
  int32_t sums[8];
  float scale[8];
};

// A row of activations, the sums of each 16 and each 32 of them, by which minima are multiplied, and each 32's scale.
struct Row {
  std::vector<Unit> units;
  std::vector<float> sums16, sums32, scales32;
};

// Whether a vector takes 16 numbers of a group of 32 and 16 of the next one; in all others it takes the 32 even or odd
// ones of 64.
bool in_halves(int64_t kind) { return kind <= Q8_0 || kind >= IQ4_NL; }

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
inline float largest_of_64(const float* x) {
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
  Row row{std::vector<Unit>(count), std::vector<float>(4 * count), std::vector<float>(2 * count), std::vector<float>(2 * count)};
  for (int64_t u = 0; u < count; ++u) {
    const float* exact = x + UNIT * u;
    float rest[UNIT] = {};
    if (const int64_t left = width - UNIT * u; left < UNIT) {
      std::copy_n(exact, left, rest);
      exact = rest;
    }
    Unit& unit = row.units[u];
    const float largest = largest_of_64(exact);
    const __m256 factor = _mm256_set1_ps(largest < SMALLEST ? 0 : 32767 / largest);
    const float scale = largest / 32767;
    _mm256_store_ps(unit.scale, _mm256_set1_ps(scale));
    row.scales32[2 * u] = row.scales32[2 * u + 1] = scale;
    __m256i groups[4], sums[4];
    for (int group = 0; group < 4; ++group) {
      groups[group] = rounded_in_two(exact + 16 * group, factor);
      sums[group] = _mm256_madd_epi16(groups[group], _mm256_set1_epi16(1));
    }
    __m256i places = _mm256_setzero_si256();
    for (int vector = 0; vector < 4; ++vector) {
      const __m256i first = groups[halves ? vector / 2 : vector / 2 * 2], second = groups[halves ? vector / 2 + 2 : vector / 2 * 2 + 1];
      const __m256i values = vector % 2 ? _mm256_permute2x128_si256(first, second, 0x31) : _mm256_permute2x128_si256(first, second, 0x20);
      _mm256_store_si256(reinterpret_cast<__m256i*>(unit.values + 16 * vector), values);
      places = _mm256_add_epi32(places, _mm256_madd_epi16(values, _mm256_set1_epi16(1)));
    }
    _mm256_store_si256(reinterpret_cast<__m256i*>(unit.sums), places);
    const __m256i of_four = _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
    const __m128i whole = _mm_add_epi32(_mm256_castsi256_si128(of_four), _mm256_extracti128_si256(of_four, 1));
    _mm_storeu_ps(row.sums16.data() + 4 * u, _mm_mul_ps(_mm_cvtepi32_ps(whole), _mm_set1_ps(scale)));
    for (int half = 0; half < 2; ++half)
      row.sums32[2 * u + half] = row.sums16[4 * u + 2 * half] + row.sums16[4 * u + 2 * half + 1];
  }
  return row;
}

// Rows of activations in the orders that the encodings of some matrices want.
class Rounded {
 public:
  Rounded(int64_t count, int64_t width, c10::IntArrayRef kinds) : width_(width) {
    for (int64_t kind : kinds)
      if (!is_float(kind)) rows_[in_halves(kind)].resize(count);
  }

  void set(int64_t r, const float* x) {
    for (int halves = 0; halves < 2; ++halves)
      if (!rows_[halves].empty()) rows_[halves][r] = rounded_row(x, width_, halves);
  }

  const Row* rows(int64_t kind) const { return rows_[in_halves(kind)].data(); }

 private:
  int64_t width_;
  std::vector<Row> rows_[2];
};

// ---------------------------------------------------------------------------------------- a row of blocks times rows

// sum + products of 16 whole numbers, in pairs.
inline __m256i add_products(__m256i sum, __m256i weights, const int16_t* x) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(weights, load(x)));
}

inline __m256i products(__m256i weights, const int16_t* x) { return _mm256_madd_epi16(weights, load(x)); }

// before + sums times scales.
inline __m256 scaled(__m256i sums, __m256 scales, __m256 before) {
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scales, before);
}

inline __m128 two_at(const float* from) { return _mm_castpd_ps(_mm_load_sd(reinterpret_cast<const double*>(from))); }

// Number 2 · pair of eight in the first half of the lanes, the one behind it in the second.
inline __m256 two_of(__m256 eight, int pair) {
  const __m256i first = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  return _mm256_permutevar8x32_ps(eight, _mm256_add_epi32(first, _mm256_set1_epi32(2 * pair)));
}

// 16 bytes at one place and 16 at another.
inline __m256i two_halves(const uint8_t* first, const uint8_t* second) {
  return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(second), reinterpret_cast<const __m128i*>(first));
}

// Of 32 bytes, the even ones and the odd ones.
inline __m256i even(__m256i bytes) { return _mm256_and_si256(bytes, _mm256_set1_epi16(0xff)); }
inline __m256i odd(__m256i bytes) { return _mm256_srli_epi16(bytes, 8); }
inline __m256i even_signed(__m256i bytes) { return _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8); }
inline __m256i odd_signed(__m256i bytes) { return _mm256_srai_epi16(bytes, 8); }

// Bits of every byte moved up, then those of `mask` alone.
inline __m256i moved_up(__m256i bytes, int by, char mask) {
  const __m256i moved = by >= 0 ? _mm256_slli_epi16(bytes, by) : _mm256_srli_epi16(bytes, -by);
  return _mm256_and_si256(moved, _mm256_set1_epi8(mask));
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

// Nibbles with a fifth bit each, bit i of the four bytes that each half of `fifths` begins with.
inline Four fives(__m256i bytes, __m256i fifths) {
  const __m256i own = _mm256_set1_epi64x(0x8040201008040201);
  Four found;
  for (int i = 0; i < 2; ++i) {
    const __m256i spread = _mm256_add_epi8(_mm256_set1_epi8(2 * i), _mm256_set_epi64x(0x0101010101010101, 0, 0x0101010101010101, 0));
    const __m256i is_set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(fifths, spread), own), own);
    const __m256i five = _mm256_or_si256(moved_up(bytes, -4 * i, 15), _mm256_and_si256(is_set, _mm256_set1_epi8(16)));
    found.of[2 * i] = even(five);
    found.of[2 * i + 1] = odd(five);
  }
  return found;
}

// What the nibbles of IQ4 stand for.
inline Four of_table(__m256i bytes) {
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
  const __m256i low = _mm256_shuffle_epi8(table, moved_up(bytes, 0, 15)), high = _mm256_shuffle_epi8(table, moved_up(bytes, -4, 15));
  return {{even_signed(low), odd_signed(low), even_signed(high), odd_signed(high)}};
}

inline __m256i all_products(const Four& weights, const Unit& unit) {
  __m256i sum = products(weights.of[0], unit.values);
  for (int i = 1; i < 4; ++i) sum = add_products(sum, weights.of[i], unit.values + 16 * i);
  return sum;
}

// Blocks of 32, two at once, one in each half of a vector.
template <int R, int64_t KIND>
inline void row_in_halves(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  constexpr bool MINIMUM = KIND == Q4_1 || KIND == Q5_1, FIVE = KIND == Q5_0 || KIND == Q5_1;
  constexpr int64_t BITS = MINIMUM ? 4 : 2, DATA = BITS + (FIVE ? 4 : 0), BYTES = DATA + (KIND == Q8_0 ? 32 : 16);
  __m256 sums[R];
  __m128 offsets[R];
  for (int r = 0; r < R; ++r) sums[r] = _mm256_setzero_ps(), offsets[r] = _mm_setzero_ps();
  for (int64_t block = 0, u = 0; block < blocks; block += 2, ++u) {
    const uint8_t* first = row + block * BYTES;
    const uint8_t* second = block + 1 < blocks ? first + BYTES : first;  // its activations are 0
    _mm_prefetch(reinterpret_cast<const char*>(first + AHEAD), _MM_HINT_T0);
    const __m256i bytes = two_halves(first + DATA, second + DATA);
    Four weights;
    if (KIND == Q8_0) {
      const __m256i rest = two_halves(first + DATA + 16, second + DATA + 16);
      weights = {{even_signed(bytes), odd_signed(bytes), even_signed(rest), odd_signed(rest)}};
    } else {
      weights = KIND == IQ4_NL ? of_table(bytes) : FIVE ? fives(bytes, two_halves(first + BITS, second + BITS)) : nibbles(bytes);
    }
    // Each block's first float16, a scale, and its second, a minimum or nothing.
    const __m128 factors = _mm_cvtph_ps(_mm_set_epi32(0, 0, four_bytes(second), four_bytes(first)));
    const __m256 scales = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(factors), _mm256_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2));
    const __m128 minima = _mm_shuffle_ps(factors, factors, _MM_SHUFFLE(3, 1, 3, 1));
    for (int r = 0; r < R; ++r) {
      const Unit& unit = x[r].units[u];
      __m256i sum = all_products(weights, unit);
      if (KIND == Q4_0 || KIND == Q5_0) sum = _mm256_sub_epi32(sum, _mm256_slli_epi32(load(unit.sums), FIVE ? 4 : 3));
      sums[r] = scaled(sum, _mm256_mul_ps(scales, _mm256_load_ps(unit.scale)), sums[r]);
      if (MINIMUM) offsets[r] = _mm_fmadd_ps(minima, two_at(x[r].sums32.data() + 2 * u), offsets[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    y[r] = total(sums[r]);
    if (MINIMUM) y[r] += _mm_cvtss_f32(_mm_add_ss(offsets[r], _mm_shuffle_ps(offsets[r], offsets[r], 1)));
  }
}

template <int R>
inline void row_iq4_xs(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  __m256 sums[R];
  for (int r = 0; r < R; ++r) sums[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint8_t* at = row + block * 136;
    const __m256 factors = scales_of_iq4_xs(at);
    __m256 scales[R];
    for (int r = 0; r < R; ++r) scales[r] = _mm256_mul_ps(factors, _mm256_loadu_ps(x[r].scales32.data() + 8 * block));
    for (int u = 0; u < 4; ++u) {
      const Four weights = of_table(load(at + 8 + 32 * u));
      for (int r = 0; r < R; ++r)
        sums[r] = scaled(all_products(weights, x[r].units[4 * block + u]), two_of(scales[r], u), sums[r]);
    }
  }
  for (int r = 0; r < R; ++r) y[r] = total(sums[r]);
}

template <int R, bool FIVE>
inline void row_q4_or_5_k(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  __m256 sums[R], offsets[R];
  for (int r = 0; r < R; ++r) sums[r] = offsets[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint8_t* at = row + block * (FIVE ? 176 : 144);
    __m256 factors, minima, scale, minimum;
    six_bits(at + 4, &factors, &minima);
    scale_and_minimum(at, &scale, &minimum);
    factors = _mm256_mul_ps(factors, scale), minima = _mm256_mul_ps(minima, minimum);
    alignas(32) float scales[R][8];
    for (int r = 0; r < R; ++r) {
      _mm256_store_ps(scales[r], _mm256_mul_ps(factors, _mm256_loadu_ps(x[r].scales32.data() + 8 * block)));
      offsets[r] = _mm256_fmadd_ps(minima, _mm256_loadu_ps(x[r].sums32.data() + 8 * block), offsets[r]);
    }
    const __m256i fifths = FIVE ? load(at + 16) : _mm256_setzero_si256();
    for (int u = 0; u < 4; ++u) {
      const uint8_t* data = at + (FIVE ? 48 : 16) + 32 * u;
      _mm_prefetch(reinterpret_cast<const char*>(data + AHEAD), _MM_HINT_T0);
      const __m256i bytes = load(data);
      Four weights = nibbles(bytes);
      for (int group = 0; FIVE && group < 2; ++group) {  // bit 2u + group of each byte is its fifth
        const __m256i five = _mm256_or_si256(moved_up(bytes, -4 * group, 15), moved_up(fifths, 4 - 2 * u - group, 16));
        weights.of[2 * group] = even(five);
        weights.of[2 * group + 1] = odd(five);
      }
      for (int r = 0; r < R; ++r)
        for (int group = 0; group < 2; ++group) {
          const int16_t* values = x[r].units[4 * block + u].values + 32 * group;
          const __m256i sum = add_products(products(weights.of[2 * group], values), weights.of[2 * group + 1], values + 16);
          sums[r] = scaled(sum, _mm256_broadcast_ss(scales[r] + 2 * u + group), sums[r]);
        }
    }
  }
  for (int r = 0; r < R; ++r) y[r] = total(_mm256_sub_ps(sums[r], offsets[r]));
}

// Groups of 16 with a scale each. Of each 128 numbers, the bytes hold bits of four groups of 32.
template <int R, int64_t KIND>
inline void row_in_sixteens(const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  constexpr int64_t BYTES = KIND == Q2_K ? 84 : KIND == Q3_K ? 110 : 210;
  __m256 sums[R], offsets[R];
  for (int r = 0; r < R; ++r) sums[r] = offsets[r] = _mm256_setzero_ps();
  for (int64_t block = 0; block < blocks; ++block) {
    const uint8_t* at = row + block * BYTES;
    __m256 scale, minimum, of_both[2];
    if (KIND == Q2_K) scale_and_minimum(at + 80, &scale, &minimum);
    else scale = _mm256_set1_ps(half_at(at + BYTES - 2));
    if (KIND == Q3_K) six_bits_of_q3(at + 96, of_both);
    for (int half = 0; half < 2; ++half) {
      _mm_prefetch(reinterpret_cast<const char*>(at + BYTES / 2 * half + AHEAD), _MM_HINT_T0);
      // Eight scales, and what is the same of all 16 numbers: their minimum or an offset of them.
      __m256 factors, minima;
      if (KIND == Q2_K) {
        int64_t bytes;
        std::memcpy(&bytes, at + 8 * half, 8);
        factors = eight_numbers(bytes & 0x0f0f0f0f0f0f0f0f, 0);
        minima = _mm256_mul_ps(eight_numbers(bytes >> 4 & 0x0f0f0f0f0f0f0f0f, 0), minimum);
      } else if (KIND == Q3_K) {
        factors = of_both[half];
      } else {
        factors = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 192 + 8 * half))));
      }
      factors = _mm256_mul_ps(factors, scale);
      if (KIND != Q2_K) minima = _mm256_mul_ps(factors, _mm256_set1_ps(KIND == Q3_K ? 4 : 32));
      __m256 scales[R];
      for (int r = 0; r < R; ++r) {
        const Unit* units = x[r].units.data() + 4 * block + 2 * half;
        scales[r] = _mm256_mul_ps(factors, _mm256_set_m128(_mm_load_ps(units[1].scale), _mm_load_ps(units[0].scale)));
        offsets[r] = _mm256_fmadd_ps(minima, _mm256_loadu_ps(x[r].sums16.data() + 16 * block + 8 * half), offsets[r]);
      }
      const __m256i bytes = load(at + (KIND == Q2_K ? 16 + 32 * half : KIND == Q3_K ? 32 + 32 * half : 64 * half));
      const __m256i more = KIND == Q2_K ? bytes : load(at + (KIND == Q3_K ? 0 : 64 * half + 32));
      const __m256i upper = KIND == Q6_K ? load(at + 128 + 32 * half) : more;
      for (int group = 0; group < 4; ++group) {
        __m256i numbers;  // of one byte each
        if (KIND == Q6_K) {  // bits 2 · group and 2 · group + 1 of each byte are its upper two
          numbers = _mm256_or_si256(moved_up(group % 2 ? more : bytes, group < 2 ? 0 : -4, 15), moved_up(upper, 4 - 2 * group, 48));
        } else {
          numbers = moved_up(bytes, -2 * group, 3);
          if (KIND == Q3_K) numbers = _mm256_or_si256(numbers, moved_up(upper, 2 - 4 * half - group, 4));
        }
        const __m256i weights[2] = {even(numbers), odd(numbers)};
        for (int r = 0; r < R; ++r) {
          const int16_t* values = x[r].units[4 * block + 2 * half + group / 2].values + 32 * (group % 2);
          const __m256i sum = add_products(products(weights[0], values), weights[1], values + 16);
          sums[r] = scaled(sum, two_of(scales[r], group), sums[r]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r) y[r] = total(_mm256_sub_ps(sums[r], offsets[r]));
}

template <int R>
inline void row_of(int64_t kind, const uint8_t* row, int64_t blocks, const Row* x, float* y) {
  switch (kind) {
    case Q4_0: return row_in_halves<R, Q4_0>(row, blocks, x, y);
    case Q4_1: return row_in_halves<R, Q4_1>(row, blocks, x, y);
    case Q5_0: return row_in_halves<R, Q5_0>(row, blocks, x, y);
    case Q5_1: return row_in_halves<R, Q5_1>(row, blocks, x, y);
    case Q8_0: return row_in_halves<R, Q8_0>(row, blocks, x, y);
    case IQ4_NL: return row_in_halves<R, IQ4_NL>(row, blocks, x, y);
    case IQ4_XS: return row_iq4_xs<R>(row, blocks, x, y);
    case Q2_K: return row_in_sixteens<R, Q2_K>(row, blocks, x, y);
    case Q3_K: return row_in_sixteens<R, Q3_K>(row, blocks, x, y);
    case Q4_K: return row_q4_or_5_k<R, false>(row, blocks, x, y);
    case Q5_K: return row_q4_or_5_k<R, true>(row, blocks, x, y);
    case Q6_K: return row_in_sixteens<R, Q6_K>(row, blocks, x, y);
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
void block_products(int64_t kind, const uint8_t* matrix, int64_t stride, int64_t rows, const Rounded& x, int64_t count,
                    int64_t width, float* y, int64_t outputs) {
  const int64_t blocks = width / numbers_of(kind), tile = std::max<int64_t>(1, TILE / stride);
  for (int64_t first = 0; first < rows; first += tile)
    for (int64_t r = 0, together; r < count; r += together) {
      together = std::min<int64_t>(4, count - r);
      const auto run = together == 4 ? rows_of<4> : together == 3 ? rows_of<3> : together == 2 ? rows_of<2> : rows_of<1>;
      run(kind, matrix + first * stride, stride, std::min(tile, rows - first), blocks, x.rows(kind) + r,
          y + r * outputs + first, outputs);
    }
}

}  // namespace
