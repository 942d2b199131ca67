// Two operators that torch does not have: the product of a few rows with a file's weights as they lie in it, blocks of a
// GGUF (operators_blocks.h) or floats (operators_floats.h), and attention of one new position over a long cache.

#include <ATen/core/Tensor.h>
#include <ATen/Parallel.h>
#include <ATen/cpu/vec/vec.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <vector>

#include "operators_blocks.h"
#include "operators_floats.h"

namespace {

// ------------------------------------------------------------------------------------------------------- the product

using Vector = at::vec::Vectorized<float>;

template <typename Work>
void each_vector(int64_t count, Work work) {
  for (int64_t i = 0; i < count; i += Vector::size()) work(i, std::min<int64_t>(Vector::size(), count - i));
}

float sum_of(Vector vector) {
  return at::vec::vec_reduce_all<float>([](Vector a, Vector b) { return a + b; }, vector);
}

enum Gate : int64_t { NONE, SILU, GELU };

// What goes into the product: gate and up as one, a row as RMS norm gives it, or a row as it is.
void prepare(const float* x, int64_t width, const float* norm, float epsilon, int64_t gate, float* y) {
  if (gate != NONE) {
    each_vector(width, [&](int64_t i, int64_t n) {
      const Vector z = Vector::loadu(x + i, n);
      const Vector inner = Vector(0.7978845608028654f) * (z + Vector(0.044715f) * z * z * z);
      const Vector open = gate == SILU ? z / (Vector(1) + z.neg().exp()) : Vector(0.5f) * z * (Vector(1) + inner.tanh());
      (open * Vector::loadu(x + width + i, n)).store(y + i, n);
    });
  } else if (norm != nullptr) {
    Vector squares(0);
    each_vector(width, [&](int64_t i, int64_t n) {
      const Vector z = Vector::loadu(x + i, n);
      squares = squares + z * z;
    });
    const Vector factor(1 / std::sqrt(sum_of(squares) / static_cast<float>(width) + epsilon));
    each_vector(width, [&](int64_t i, int64_t n) {
      (Vector::loadu(x + i, n) * factor * Vector::loadu(norm + i, n)).store(y + i, n);
    });
  } else {
    std::memcpy(y, x, width * sizeof(float));
  }
}

const float* numbers(const std::optional<at::Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr<float>() : nullptr;
}

// prepare(x) Wᵀ + bias + added, for matrices below each other. x: [rows, in], with a gate [rows, 2 · in]; matrices:
// [out, in] or bytes [out, bytes of a row], all of the same width; bias: [all outs]; norm: [in]; added and result: [rows, all outs].
at::Tensor product(const at::Tensor& x, at::TensorList matrices, at::IntArrayRef kinds,
                   const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& norm, double epsilon,
                   int64_t gate, const std::optional<at::Tensor>& added) {
  const at::Tensor input = x.contiguous();
  const int64_t count = input.size(0), stride = input.size(1), width = gate == NONE ? stride : stride / 2;
  int64_t outputs = 0;
  for (const auto& matrix : matrices) outputs += matrix.size(0);
  std::vector<Row> x_rows[2];  // in the order for blocks in halves, and for others
  std::vector<float> plain;  // for floats
  for (int64_t kind : kinds) is_float(kind) ? plain.resize(count * width) : x_rows[in_halves(kind)].resize(count);
  at::parallel_for(0, count, std::max<int64_t>(1, 65536 / width), [&](int64_t begin, int64_t end) {
    std::vector<float> one(width);
    for (int64_t r = begin; r < end; ++r) {
      float* row = plain.empty() ? one.data() : plain.data() + r * width;
      prepare(input.const_data_ptr<float>() + r * stride, width, numbers(norm), static_cast<float>(epsilon), gate, row);
      for (int halves = 0; halves < 2; ++halves)
        if (!x_rows[halves].empty()) x_rows[halves][r] = rounded_row(row, width, halves);
    }
  });
  at::Tensor result = at::empty({count, outputs}, input.options());
  float* y = result.data_ptr<float>();
  at::parallel_for(0, outputs, std::max<int64_t>(8, 32768 / width), [&](int64_t begin, int64_t end) {
    int64_t start = 0;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const int64_t rows = matrices[i].size(0), kind = kinds[i];
      const int64_t from = std::max<int64_t>(begin - start, 0), to = std::min(end - start, rows);
      const int64_t apart = matrices[i].stride(0) * matrices[i].element_size();
      const uint8_t* matrix = static_cast<const uint8_t*>(matrices[i].const_data_ptr()) + from * apart;
      float* into = y + start + from;
      if (from < to && is_float(kind)) {
        const auto run = kind == F32 ? float_products<F32> : kind == F16 ? float_products<F16> : float_products<BF16>;
        run(matrix, apart, to - from, plain.data(), count, width, into, outputs);
      } else if (from < to) {
        block_products(kind, matrix, apart, to - from, x_rows[in_halves(kind)].data(), count, width, into, outputs);
      }
      start += rows;
    }
    for (int64_t r = 0; r < count && (bias || added); ++r)
      for (int64_t out = begin; out < end; ++out)
        y[r * outputs + out] += (bias ? numbers(bias)[out] : 0) + (added ? numbers(added)[r * outputs + out] : 0);
  });
  return result;
}

// --------------------------------------------------------------------------------------------------------- attention

constexpr int64_t CHUNK = 128;  // positions whose keys and values stay in a core's cache

// G queries over a chunk of keys and values: of each the largest score, the sum of exp(score - largest), and the sum of
// these times the values.
template <int G>
void chunk_of(const float* const* queries, const float* keys, const float* values, int64_t stride, int64_t count,
              int64_t size, const float* mask, float scale, float* largest, float* sums, float* const* seen) {
  float scores[G][CHUNK];
  for (int64_t p = 0; p < count; ++p) {
    Vector products[G];
    for (int g = 0; g < G; ++g) products[g] = Vector(0);
    for (int64_t d = 0; d < size; d += Vector::size()) {
      const Vector key = Vector::loadu(keys + p * stride + d);
      for (int g = 0; g < G; ++g) products[g] = at::vec::fmadd(key, Vector::loadu(queries[g] + d), products[g]);
    }
    for (int g = 0; g < G; ++g) scores[g][p] = sum_of(products[g]) * scale + (mask != nullptr ? mask[p] : 0);
  }
  for (int g = 0; g < G; ++g) {
    largest[g] = *std::max_element(scores[g], scores[g] + count);
    Vector sum(0);
    each_vector(count, [&](int64_t i, int64_t n) {
      const Vector weight = (Vector::loadu(scores[g] + i, n) - Vector(largest[g])).exp();
      sum = sum + Vector::set(Vector(0), weight, n);
      weight.store(scores[g] + i, n);
    });
    sums[g] = sum_of(sum);
  }
  constexpr int WIDE = 2;
  for (int64_t d = 0; d < size; d += WIDE * Vector::size()) {
    Vector found[G][WIDE];
    for (auto& row : found) std::fill(row, row + WIDE, Vector(0));
    for (int64_t p = 0; p < count; ++p)
      for (int i = 0; i < WIDE; ++i) {
        const Vector value = Vector::loadu(values + p * stride + d + i * Vector::size());
        for (int g = 0; g < G; ++g) found[g][i] = at::vec::fmadd(value, Vector(scores[g][p]), found[g][i]);
      }
    for (int g = 0; g < G; ++g)
      for (int i = 0; i < WIDE; ++i) found[g][i].store(seen[g] + d + i * Vector::size());
  }
}

// As scaled_dot_product_attention. queries: [lanes, kv heads, group, size]; keys, values: [lanes, kv heads, length, size],
// size a multiple of 16; mask: added to scores, [lanes or 1, 1, group, length], the same for a whole group. Returns
// [lanes, kv heads · group · size]. Chunks of positions are shared out among the threads and put together at the end.
at::Tensor attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                     const std::optional<at::Tensor>& mask, double scale) {
  const at::Tensor q = queries.contiguous();
  const int64_t lanes = q.size(0), heads = q.size(1), group = q.size(2), size = q.size(3), length = keys.size(2);
  const int64_t chunks = (length + CHUNK - 1) / CHUNK, tasks = lanes * heads * chunks, stride = size + 2;
  std::vector<float> parts(tasks * group * stride);  // of each query and chunk: largest, sum, what is seen
  at::parallel_for(0, tasks, std::max<int64_t>(1, 64 / group), [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t lane = task / chunks / heads, head = task / chunks % heads, from = task % chunks * CHUNK;
      const auto there = [&](const at::Tensor& kept) {
        return kept.const_data_ptr<float>() + lane * kept.stride(0) + head * kept.stride(1) + from * kept.stride(2);
      };
      const float* hidden = mask ? mask->const_data_ptr<float>() + (mask->size(0) > 1 ? lane * mask->stride(0) : 0) + from : nullptr;
      for (int64_t g = 0; g < group;) {
        const float* of[4];
        float *seen[4], largest[4], sums[4];
        const int64_t together = std::min<int64_t>(4, group - g);
        float* part = parts.data() + (task * group + g) * stride;
        for (int64_t i = 0; i < together; ++i) {
          of[i] = q.const_data_ptr<float>() + ((lane * heads + head) * group + g + i) * size;
          seen[i] = part + i * stride + 2;
        }
        const auto run = together == 4 ? chunk_of<4> : together == 3 ? chunk_of<3> : together == 2 ? chunk_of<2> : chunk_of<1>;
        run(of, there(keys), there(values), keys.stride(2), std::min(CHUNK, length - from), size, hidden,
            static_cast<float>(scale), largest, sums, seen);
        for (int64_t i = 0; i < together; ++i) part[i * stride] = largest[i], part[i * stride + 1] = sums[i];
        g += together;
      }
    }
  });
  at::Tensor result = at::zeros({lanes, heads * group * size}, q.options());
  for (int64_t row = 0; row < lanes * heads * group; ++row) {
    const float* part = parts.data() + (row / group * chunks * group + row % group) * stride;
    float* seen = result.data_ptr<float>() + row * size;
    float largest = part[0], sum = 0;
    for (int64_t c = 1; c < chunks; ++c) largest = std::max(largest, part[c * group * stride]);
    for (int64_t c = 0; c < chunks; ++c, part += group * stride) {
      const float weight = std::exp(part[0] - largest);
      sum += weight * part[1];
      for (int64_t d = 0; d < size; ++d) seen[d] += weight * part[2 + d];
    }
    for (int64_t d = 0; d < size; ++d) seen[d] /= sum;
  }
  return result;
}

}  // namespace

TORCH_LIBRARY(logitlab, library) {
  library.def(
      "product(Tensor x, Tensor[] matrices, int[] kinds, Tensor? bias, Tensor? norm, float epsilon, int gate, "
      "Tensor? added) -> Tensor");
  library.def("attention(Tensor queries, Tensor keys, Tensor values, Tensor? mask, float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(logitlab, CPU, library) {
  library.impl("product", product);
  library.impl("attention", attention);
}
