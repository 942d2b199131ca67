// Attention of one position over a chunk of keys and values: what one thread does at a time.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <immintrin.h>

#include <algorithm>

namespace {

using Vector = at::vec::Vectorized<float>;

template <typename Work>
void each_vector(int64_t count, Work work) {
  for (int64_t i = 0; i < count; i += Vector::size()) work(i, std::min<int64_t>(Vector::size(), count - i));
}

inline float sum_of(Vector vector) {
  return at::vec::vec_reduce_all<float>([](Vector a, Vector b) { return a + b; }, vector);
}

constexpr int64_t CHUNK = 128;           // positions whose keys and values stay in a core's cache
constexpr int64_t POSITIONS_AHEAD = 32;  // fetched before they are needed

// What is known of a query after some positions: the largest score, the sum of exp(score - largest), and the sum of these
// times the values, as floats in this order.
constexpr int64_t LARGEST_AT = 0, SUM_AT = 1, SEEN_AT = 2;

inline void fetch(const float* row, int64_t size) {
  for (int64_t d = 0; d < size; d += 16) _mm_prefetch(reinterpret_cast<const char*>(row + d), _MM_HINT_T0);
}

#if defined(__AVX512F__) && defined(__AVX512DQ__)

// Totals of eight vectors, in order.
inline __m256 totals_of_eight(const __m512* v) {
  const auto paired = [](__m512 a, __m512 b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); };
  const auto fours = [&](const __m512* of) {
    const __m512d first = _mm512_castps_pd(paired(of[0], of[1])), second = _mm512_castps_pd(paired(of[2], of[3]));
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(first, second)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
  };
  const __m512 low = fours(v), high = fours(v + 4);
  const __m512 both =
      _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));  // low, low, high, high
  const __m512 swapped = _mm512_shuffle_f32x4(both, both, _MM_SHUFFLE(2, 3, 0, 1));
  return _mm512_castps512_ps256(_mm512_permutexvar_ps(_mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 0, 0, 0, 0, 0, 0, 0, 0),
                                                      _mm512_add_ps(both, swapped)));
}

// Products of G queries with eight keys.
template <int G>
inline void eight_products(const float* queries, const float* keys, int64_t stride, int64_t size, float (*scores)[CHUNK],
                           int64_t p) {
  __m512 sums[G][8];
  for (auto& of : sums) std::fill(of, of + 8, _mm512_setzero_ps());
  for (int64_t d = 0; d < size; d += 16) {
    __m512 q[G];
#pragma GCC unroll 4
    for (int g = 0; g < G; ++g) q[g] = _mm512_loadu_ps(queries + g * size + d);
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      const __m512 key = _mm512_loadu_ps(keys + i * stride + d);
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) sums[g][i] = _mm512_fmadd_ps(key, q[g], sums[g][i]);
    }
  }
  for (int g = 0; g < G; ++g) _mm256_storeu_ps(scores[g] + p, totals_of_eight(sums[g]));
}

#endif

// Values times the weights of G queries, WIDE vectors of them; of later values, `fetched` numbers are fetched.
template <int G, int WIDE>
inline void weigh(const float (*weights)[CHUNK], const float* values, int64_t stride, int64_t count, int64_t fetched,
                  float* seen, int64_t apart) {
  Vector found[G][WIDE];
  for (auto& row : found) std::fill(row, row + WIDE, Vector(0));
  for (int64_t p = 0; p < count; ++p) {
    fetch(values + (p + POSITIONS_AHEAD) * stride, fetched);
#pragma GCC unroll 4
    for (int i = 0; i < WIDE; ++i) {
      const Vector value = Vector::loadu(values + p * stride + i * Vector::size());
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) found[g][i] = at::vec::fmadd(value, Vector(weights[g][p]), found[g][i]);
    }
  }
  for (int g = 0; g < G; ++g)
    for (int i = 0; i < WIDE; ++i) found[g][i].store(seen + g * apart + i * Vector::size());
}

// G queries [G, size] over a chunk of keys and values: what is then known of each, `apart` floats from one to the next.
// `fetches`: whether these keys and values have not been read before.
template <int G>
void chunk_of(const float* queries, const float* keys, const float* values, int64_t stride, int64_t count, int64_t size,
              const float* mask, float scale, bool fetches, float* known, int64_t apart) {
  const int64_t fetched = fetches ? size : 0;
  float scores[G][CHUNK];
  int64_t p = 0;
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  for (; p + 8 <= count; p += 8) {
    for (int i = 0; i < 8; ++i) fetch(keys + (p + i + POSITIONS_AHEAD) * stride, fetched);
    constexpr int FIRST = std::min(G, 3);  // whose sums have room in the registers
    eight_products<FIRST>(queries, keys + p * stride, stride, size, scores, p);
    if constexpr (G > FIRST)
      eight_products<G - FIRST>(queries + FIRST * size, keys + p * stride, stride, size, scores + FIRST, p);
  }
#endif
  for (; p < count; ++p) {
    fetch(keys + (p + POSITIONS_AHEAD) * stride, fetched);
    Vector products[G];
    for (int g = 0; g < G; ++g) products[g] = Vector(0);
    for (int64_t d = 0; d < size; d += Vector::size()) {
      const Vector key = Vector::loadu(keys + p * stride + d);
      for (int g = 0; g < G; ++g) products[g] = at::vec::fmadd(key, Vector::loadu(queries + g * size + d), products[g]);
    }
    for (int g = 0; g < G; ++g) scores[g][p] = sum_of(products[g]);
  }
  for (int g = 0; g < G; ++g) {
    float* of = scores[g];
    each_vector(count, [&](int64_t i, int64_t n) {
      const Vector score = Vector::loadu(of + i, n) * Vector(scale);
      (mask != nullptr ? score + Vector::loadu(mask + i, n) : score).store(of + i, n);
    });
    const float largest = *std::max_element(of, of + count);
    Vector sum(0);
    each_vector(count, [&](int64_t i, int64_t n) {
      const Vector weight = (Vector::loadu(of + i, n) - Vector(largest)).exp();
      sum = sum + Vector::set(Vector(0), weight, n);
      weight.store(of + i, n);
    });
    known[g * apart + LARGEST_AT] = largest, known[g * apart + SUM_AT] = sum_of(sum);
  }
  constexpr int WIDE = Vector::size() == 16 ? 4 : 2;  // vectors whose sums have room in the registers
  int64_t d = 0;
  for (; d + WIDE * Vector::size() <= size; d += WIDE * Vector::size())
    weigh<G, WIDE>(scores, values + d, stride, count, d == 0 ? fetched : 0, known + SEEN_AT + d, apart);
  for (; d < size; d += Vector::size())
    weigh<G, 1>(scores, values + d, stride, count, d == 0 ? fetched : 0, known + SEEN_AT + d, apart);
}

}  // namespace
