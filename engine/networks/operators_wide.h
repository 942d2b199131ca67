// The product of rows with a GGUF file's blocks as they lie in it, where the processor multiplies bytes and adds them up in
// 512-bit vectors (AVX-512 with VNNI).
//
// A row of activations is written as 16-bit whole numbers with a scale for each 32 of them, their upper and their lower
// bytes apart: products of each with the bytes of the weights, added up, are the product of the whole numbers, exactly. It is
// float32 from there on. Weights are bytes from 0 on: what is to be taken off all of them is taken off once, times a sum
// of activations.
//
// 128 numbers go together, as two vectors: of each of their four groups of 32 the first sixteen, and the second sixteen.
// Four numbers that follow each other make a lane. For a few rows the lanes of a vector are those of one row of the
// matrix. For many, 16 rows of it are written out as bytes, so that the lanes of a vector are 16 outputs: these bytes, and
// their scales, then serve all rows of activations.
#pragma once

#include <c10/util/ArrayRef.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "operators_wide_weights.h"

namespace {

// ---------------------------------------------------------------------------------------------- rows of activations

constexpr int64_t UNIT = 128;
constexpr int64_t AHEAD = 6144;  // bytes, fetched before they are needed
constexpr float LARGEST = 32639;  // 127 · 256 + 127: what two bytes with signs can be
constexpr int64_t FEW = 5;        // rows, up to which nothing is written out

// 128 activations: bytes in the order of the weights', the scale of each 32; sums of each 32 and each 16 times their scale,
// by which minima are multiplied; sums of whole numbers, of the lanes of both vectors and of each 32, by which an offset is.
struct alignas(64) Unit {
  int8_t high[UNIT], low[UNIT];
  int32_t lanes[16];
  float sums16[8], sums32[4], scales[4];
  int32_t whole[4];
};

// sum + products of bytes from 0 to 255 with bytes that have signs, four by four.
inline __m512i add_products(__m512i sum, __m512i weights, __m512i x) { return _mm512_dpbusd_epi32(sum, weights, x); }

void round_unit(const float* x, Unit* unit) {
  for (int group = 0; group < 4; ++group) {
    const __m512 halves[2] = {_mm512_loadu_ps(x + 32 * group), _mm512_loadu_ps(x + 32 * group + 16)};
    // Without its sign a float is in order as a whole number too, and what is no number is the largest.
    const __m512i unsigned_bits = _mm512_set1_epi32(0x7fffffff);
    const __m512i bits = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(halves[0]), unsigned_bits),
                                          _mm512_and_si512(_mm512_castps_si512(halves[1]), unsigned_bits));
    const int32_t largest_bits = _mm512_reduce_max_epi32(bits);
    float largest;
    std::memcpy(&largest, &largest_bits, 4);
    const __m512 factor = _mm512_set1_ps(largest < SMALLEST ? 0 : LARGEST / largest);
    const float scale = unit->scales[group] = largest / LARGEST;
    unit->whole[group] = 0;
    for (int half = 0; half < 2; ++half) {
      const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(halves[half], factor));
      const __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(128)), 8);
      const int64_t place = 64 * half + 16 * group;
      _mm_store_si128(reinterpret_cast<__m128i*>(unit->high + place), _mm512_cvtepi32_epi8(upper));
      _mm_store_si128(reinterpret_cast<__m128i*>(unit->low + place), _mm512_cvtepi32_epi8(whole));
      const int32_t sum = _mm512_reduce_add_epi32(whole);
      unit->sums16[2 * group + half] = static_cast<float>(sum) * scale;
      unit->whole[group] += sum;
    }
    unit->sums32[group] = unit->sums16[2 * group] + unit->sums16[2 * group + 1];
  }
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums = _mm512_setzero_si512();
  for (int half = 0; half < 2; ++half) sums = add_products(sums, ones, load512(unit->high + 64 * half));
  sums = _mm512_slli_epi32(sums, 8);
  for (int half = 0; half < 2; ++half) sums = add_products(sums, ones, load512(unit->low + 64 * half));
  _mm512_store_si512(unit->lanes, sums);
}

// Rows of activations, for every encoding.
class Rounded {
 public:
  Rounded(int64_t count, int64_t width, c10::IntArrayRef kinds) : width_(width), units_((width + UNIT - 1) / UNIT) {
    // Not filled: each is set.
    if (!std::all_of(kinds.begin(), kinds.end(), is_float)) all_.reset(new Unit[count * units_]);
  }

  void set(int64_t r, const float* x) {
    if (!all_) return;
    Unit* to = all_.get() + r * units_;
    const int64_t whole = width_ / UNIT;
    for (int64_t u = 0; u < whole; ++u) round_unit(x + UNIT * u, to + u);
    if (whole == units_) return;
    float rest[UNIT] = {};
    std::copy_n(x + UNIT * whole, width_ - UNIT * whole, rest);
    round_unit(rest, to + whole);
  }

  int64_t units() const { return units_; }
  const Unit* row(int64_t r) const { return all_.get() + r * units_; }

 private:
  int64_t width_, units_;
  std::unique_ptr<Unit[]> all_;
};

// ------------------------------------------------------------------------------------------------------- a few rows

// Sums of whole numbers, of a vector of each 64, or of both.
template <int64_t KIND, int COUNT>
inline __m512 whole_products(const __m512i* weights, const int8_t* high, const int8_t* low, const int32_t* lanes) {
  __m512i sums = _mm512_setzero_si512();
  for (int i = 0; i < COUNT; ++i) sums = add_products(sums, weights[i], load512(high + 64 * i));
  sums = _mm512_slli_epi32(sums, 8);
  if (constexpr int bits = offset_bits(KIND); bits > 0)
    sums = _mm512_sub_epi32(sums, _mm512_slli_epi32(load512(lanes), bits));
  for (int i = 0; i < COUNT; ++i) sums = add_products(sums, weights[i], load512(low + 64 * i));
  return _mm512_cvtepi32_ps(sums);
}

// A unit of weights times R rows of activations, added to sums.
template <int R, int64_t KIND>
inline void add_unit(const Weights& weights, const Unit* const* x, int64_t u, __m512 (&sums)[R]) {
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {
    const Unit& unit = x[r][u];
    const __m128 four = _mm_load_ps(unit.scales);
    if constexpr (in_sixteens(KIND)) {
      const __m256 twice_each =
          _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
      const __m512 scales = _mm512_castps256_ps512(_mm256_mul_ps(weights.scales, twice_each));
      const __m512i places = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
      for (int half = 0; half < 2; ++half) {
        const __m512 each = _mm512_permutexvar_ps(_mm512_add_epi32(places, _mm512_set1_epi32(half)), scales);
        const __m512 products =
            whole_products<KIND, 1>(weights.of + half, unit.high + 64 * half, unit.low + 64 * half, nullptr);
        sums[r] = _mm512_fmadd_ps(products, each, sums[r]);
      }
      sums[r] = _mm512_fmadd_ps(_mm512_zextps256_ps512(weights.minima), _mm512_zextps256_ps512(_mm256_load_ps(unit.sums16)),
                                sums[r]);
    } else {
      const __m512i places = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
      const __m512 scales = _mm512_castps128_ps512(_mm_mul_ps(_mm256_castps256_ps128(weights.scales), four));
      const __m512 products = whole_products<KIND, 2>(weights.of, unit.high, unit.low, unit.lanes);
      sums[r] = _mm512_fmadd_ps(products, _mm512_permutexvar_ps(places, scales), sums[r]);
      if constexpr (has_minima(KIND)) {
        const __m512 minima = _mm512_zextps128_ps512(_mm256_castps256_ps128(weights.minima));
        sums[r] = _mm512_fmadd_ps(minima, _mm512_zextps128_ps512(_mm_load_ps(unit.sums32)), sums[r]);
      }
    }
  }
}

// The totals of up to four vectors.
template <int R>
inline __m128 totals(const __m512 (&sums)[R]) {
  const auto paired = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const __m512 first = paired(sums[0], sums[R > 1 ? 1 : 0]),
               second = R > 2 ? paired(sums[R > 2 ? 2 : 0], sums[R > 3 ? 3 : 0]) : first;
  const __m512 all = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(first), _mm512_castps_pd(second))),
                                   _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(first), _mm512_castps_pd(second))));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// Rows of a matrix times R rows of activations.
template <int R, int64_t KIND>
void few_rows(const uint8_t* matrix, int64_t stride, int64_t rows, int64_t blocks, const Unit* const* x, float* y,
              int64_t outputs) {
  for (int64_t out = 0; out < rows; ++out, matrix += stride) {
    __m512 sums[R];
    for (int r = 0; r < R; ++r) sums[r] = _mm512_setzero_ps();
    if constexpr (of_256(KIND)) {
      for (int64_t block = 0; block < blocks; ++block) {
        const uint8_t* at = matrix + block * bytes_of_block(KIND);
        for (int line = 0; line < bytes_of_block(KIND); line += 64)
          _mm_prefetch(reinterpret_cast<const char*>(at + line + AHEAD), _MM_HINT_T0);
        add_unit<R, KIND>(of_half<KIND, 0>(at), x, 2 * block, sums);
        add_unit<R, KIND>(of_half<KIND, 1>(at), x, 2 * block + 1, sums);
      }
    } else {
      int64_t u = 0;
      for (const uint8_t* at = matrix; u < blocks / 4; ++u, at += 4 * bytes_of_block(KIND)) {
        for (int line = 0; line + 64 <= 4 * bytes_of_block(KIND); line += 64)
          _mm_prefetch(reinterpret_cast<const char*>(at + line + AHEAD), _MM_HINT_T0);
        add_unit<R, KIND>(of_four<KIND>(at, 4), x, u, sums);
      }
      if (blocks % 4) add_unit<R, KIND>(weights_of<KIND>(matrix, u, blocks), x, u, sums);
    }
    alignas(16) float found[4];
    _mm_store_ps(found, totals<R>(sums));
    for (int r = 0; r < R; ++r) y[r * outputs + out] = found[r];
  }
}

// -------------------------------------------------------------------------------------------------------- many rows

// 32 rows of a matrix, in two vectors of 16 lanes: of each unit the four bytes in each of its 32 lanes, those of a group of
// 32 behind each other; and four or eight scales, then minima.
struct Panel {
  std::vector<__m512i> bytes;
  std::vector<__m512> factors;
};

constexpr int VECTORS = 2, LANES = 32, FACTORS = 16;  // of a panel, and of a unit
constexpr int64_t OUTPUTS = 16 * VECTORS;

// Lane j of vector i becomes lane i of vector j.
[[gnu::always_inline]] inline void transpose(__m512i* v) {
  __m512i w[16];
  for (int i = 0; i < 16; i += 2) {
    w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      v[i + 2 * j] = _mm512_unpacklo_epi64(w[i + j], w[i + j + 2]);
      v[i + 2 * j + 1] = _mm512_unpackhi_epi64(w[i + j], w[i + j + 2]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      w[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0x88);
      w[i + j + 4] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    v[j] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0x88);
    v[j + 8] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0xdd);
  }
}

template <int64_t KIND>
void write_out(const uint8_t* matrix, int64_t stride, int64_t rows, int64_t units, int64_t blocks, Panel* panel) {
  for (int64_t u = 0; u < units; ++u)
    for (int vector = 0; vector < VECTORS; ++vector) {
      __m512i bytes[2][16], factors[16];
      for (int64_t row = 0; row < 16; ++row) {
        const uint8_t* at = matrix + std::min(16 * vector + row, rows - 1) * stride;
        const Weights weights = weights_of<KIND>(at, u, blocks);
        bytes[0][row] = weights.of[0], bytes[1][row] = weights.of[1];
        factors[row] = _mm512_castps_si512(_mm512_insertf32x8(_mm512_castps256_ps512(weights.scales), weights.minima, 1));
      }
      for (int half = 0; half < 2; ++half) {
        transpose(bytes[half]);
        for (int i = 0; i < 16; ++i)
          panel->bytes[(u * LANES + i / 4 * 8 + half * 4 + i % 4) * VECTORS + vector] = bytes[half][i];
      }
      transpose(factors);
      for (int i = 0; i < FACTORS; ++i)
        panel->factors[(u * FACTORS + i) * VECTORS + vector] = _mm512_castsi512_ps(factors[i]);
    }
}

inline __m512i four_everywhere(const int8_t* at) {
  return _mm512_set1_epi32(four_bytes(reinterpret_cast<const uint8_t*>(at)));
}

// A panel times R rows of activations.
template <int R, int64_t KIND>
void times_panel(const Panel& panel, int64_t groups, const Unit* const* x, float* y, int64_t outputs,
                 const __mmask16* valid) {
  constexpr bool SIXTEENS = in_sixteens(KIND);
  constexpr int COUNT = SIXTEENS ? 4 : 8;  // lanes of activations that have a scale of weights in common
  __m512 sums[R][VECTORS];
  for (auto& row : sums) std::fill(row, row + VECTORS, _mm512_setzero_ps());
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t u = g / (LANES / COUNT), group = g % (LANES / COUNT), of32 = SIXTEENS ? group / 2 : group;
    const int64_t lane = SIXTEENS ? 16 * (group % 2) + 4 * of32 : 4 * of32;  // the first one, in activations
    const __m512i* bytes = panel.bytes.data() + g * COUNT * VECTORS;
    __m512i high[R][VECTORS], low[R][VECTORS];
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) high[r][v] = low[r][v] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < COUNT; ++i)
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const int64_t place = 4 * (lane + i / 4 * 16 + i % 4);
        const __m512i upper = four_everywhere(x[r][u].high + place), lower = four_everywhere(x[r][u].low + place);
        for (int v = 0; v < VECTORS; ++v) {
          high[r][v] = add_products(high[r][v], bytes[i * VECTORS + v], upper);
          low[r][v] = add_products(low[r][v], bytes[i * VECTORS + v], lower);
        }
      }
    const __m512* factors = panel.factors.data() + (u * FACTORS + group) * VECTORS;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Unit& unit = x[r][u];
      for (int v = 0; v < VECTORS; ++v) {
        __m512i whole = _mm512_add_epi32(_mm512_slli_epi32(high[r][v], 8), low[r][v]);
        if constexpr (constexpr int bits = offset_bits(KIND); bits > 0)
          whole = _mm512_sub_epi32(whole, _mm512_slli_epi32(_mm512_set1_epi32(unit.whole[group]), bits));
        const __m512 scales = _mm512_mul_ps(factors[v], _mm512_set1_ps(unit.scales[of32]));
        sums[r][v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(whole), scales, sums[r][v]);
        if (has_minima(KIND)) {
          const __m512 minima = factors[FACTORS / 2 * VECTORS + v];
          sums[r][v] =
              _mm512_fmadd_ps(minima, _mm512_set1_ps(SIXTEENS ? unit.sums16[group] : unit.sums32[group]), sums[r][v]);
        }
      }
    }
  }
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < VECTORS; ++v) _mm512_mask_storeu_ps(y + r * outputs + 16 * v, valid[v], sums[r][v]);
}

template <int64_t KIND>
void many_rows(const uint8_t* matrix, int64_t stride, int64_t rows, int64_t blocks, const Rounded& x, int64_t count,
               float* y, int64_t outputs) {
  constexpr int R = 4;  // whose sums have room in the registers
  const int64_t units = x.units(), groups = blocks * numbers_of(KIND) / (in_sixteens(KIND) ? 16 : 32);
  thread_local Panel panel;  // its memory serves all products
  panel.bytes.resize(std::max<size_t>(panel.bytes.size(), units * LANES * VECTORS));
  panel.factors.resize(std::max<size_t>(panel.factors.size(), units * FACTORS * VECTORS));
  for (int64_t first = 0; first < rows; first += OUTPUTS) {
    const int64_t some = std::min(OUTPUTS, rows - first);
    write_out<KIND>(matrix + first * stride, stride, some, units, blocks, &panel);
    __mmask16 valid[VECTORS];
    for (int v = 0; v < VECTORS; ++v)
      valid[v] = static_cast<__mmask16>(_bzhi_u32(0xffff, std::clamp<int64_t>(some - 16 * v, 0, 16)));
    // The next rows, while these are multiplied: they lie too far apart for the processor to foresee them.
    const uint8_t *next = matrix + (first + some) * stride, *end = next + std::min(OUTPUTS, rows - first - some) * stride;
    const int64_t lines = (end - next) / 64 * R / count + 1;
    for (int64_t r = 0; r < count; r += R) {
      for (int64_t line = 0; line < lines && next < end; ++line, next += 64)
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T1);
      const int64_t from = std::min(r, count - R);  // the last ones may be computed twice
      const Unit* of[R];
      for (int64_t i = 0; i < R; ++i) of[i] = x.row(from + i);
      times_panel<R, KIND>(panel, groups, of, y + from * outputs + first, outputs, valid);
    }
  }
}

template <int64_t KIND>
void products_of(const uint8_t* matrix, int64_t stride, int64_t rows, int64_t blocks, const Rounded& x, int64_t count,
                 float* y, int64_t outputs) {
  if (count > FEW) return many_rows<KIND>(matrix, stride, rows, blocks, x, count, y, outputs);
  const int64_t tile = std::max<int64_t>(1, TILE / stride);
  for (int64_t first = 0; first < rows; first += tile)
    for (int64_t r = 0, together; r < count; r += together) {
      together = std::min<int64_t>(count > 4 ? 3 : 4, count - r);
      const Unit* of[4];
      for (int64_t i = 0; i < together; ++i) of[i] = x.row(r + i);
      const auto run = together == 4   ? few_rows<4, KIND>
                       : together == 3 ? few_rows<3, KIND>
                       : together == 2 ? few_rows<2, KIND>
                                       : few_rows<1, KIND>;
      run(matrix + first * stride, stride, std::min(tile, rows - first), blocks, of, y + r * outputs + first, outputs);
    }
}

// Rows of a matrix, bytes `stride` apart, times `count` rows of activations, into columns of [count, outputs].
void block_products(int64_t kind, const uint8_t* matrix, int64_t stride, int64_t rows, const Rounded& x, int64_t count,
                    int64_t width, float* y, int64_t outputs) {
  const int64_t blocks = width / numbers_of(kind);
  const auto run = [&]() {
    switch (kind) {
      case Q4_0: return products_of<Q4_0>;
      case Q4_1: return products_of<Q4_1>;
      case Q5_0: return products_of<Q5_0>;
      case Q5_1: return products_of<Q5_1>;
      case Q8_0: return products_of<Q8_0>;
      case IQ4_NL: return products_of<IQ4_NL>;
      case IQ4_XS: return products_of<IQ4_XS>;
      case Q2_K: return products_of<Q2_K>;
      case Q3_K: return products_of<Q3_K>;
      case Q4_K: return products_of<Q4_K>;
      case Q5_K: return products_of<Q5_K>;
      case Q6_K: return products_of<Q6_K>;
      default: TORCH_CHECK(false, "no product for encoding ", kind);
    }
  }();
  run(matrix, stride, rows, blocks, x, count, y, outputs);
}

}  // namespace
