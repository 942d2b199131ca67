// Two operators that torch does not have: the product of rows with a file's weights as they lie in it, blocks of a GGUF
// (operators_wide.h, or operators_blocks.h on processors without byte products) or floats (operators_floats.h), and
// attention of one new position, or of some in each other's place, over a long cache (operators_attention.h).

#include <ATen/core/Tensor.h>
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <tuple>
#include <vector>

#include "operators_attention.h"
#include "operators_floats.h"
#include "operators_summary.h"
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)
#include "operators_wide.h"
#else
#include "operators_blocks.h"
#endif

namespace {

// ------------------------------------------------------------------------------------------------------- the product

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

void sum_up(const float* x, float* y, int64_t count) {
  each_vector(count, [&](int64_t i, int64_t n) { (Vector::loadu(y + i, n) + Vector::loadu(x + i, n)).store(y + i, n); });
}

// Rows of activations as products take them: rounded for blocks, and as they are for floats.
struct Inputs {
  Rounded rounded;
  std::vector<float> plain;
  int64_t count, width;

  // What `prepare` makes of x: [rows, in], with a gate [rows, 2 · in].
  Inputs(const at::Tensor& x, at::IntArrayRef kinds, const std::optional<at::Tensor>& norm, double epsilon, int64_t gate)
      : rounded(x.size(0), gate == NONE ? x.size(1) : x.size(1) / 2, kinds),
        count(x.size(0)),
        width(gate == NONE ? x.size(1) : x.size(1) / 2) {
    if (std::any_of(kinds.begin(), kinds.end(), is_float)) plain.resize(count * width);
    const float *from = x.const_data_ptr<float>(), *by = numbers(norm);
    const int64_t stride = x.size(1);
    at::parallel_for(0, count, std::max<int64_t>(1, 8192 / width), [&](int64_t begin, int64_t end) {
      std::vector<float> one(width);
      for (int64_t r = begin; r < end; ++r) {
        float* row = plain.empty() ? one.data() : plain.data() + r * width;
        prepare(from + r * stride, width, by, static_cast<float>(epsilon), gate, row);
        rounded.set(r, row);
      }
    });
  }

  // Rows of a matrix, bytes `apart`, times all of these, into columns of [count, outputs].
  void times(int64_t kind, const uint8_t* matrix, int64_t apart, int64_t rows, float* y, int64_t outputs) const {
    if (!is_float(kind)) return block_products(kind, matrix, apart, rows, rounded, count, width, y, outputs);
    const auto run = kind == F32 ? float_products<F32> : kind == F16 ? float_products<F16> : float_products<BF16>;
    run(matrix, apart, rows, plain.data(), count, width, y, outputs);
  }
};

const uint8_t* bytes_of(const at::Tensor& matrix) { return static_cast<const uint8_t*>(matrix.const_data_ptr()); }
int64_t bytes_apart(const at::Tensor& matrix) { return matrix.stride(0) * matrix.element_size(); }

constexpr int64_t TOGETHER = 16;  // outputs that one thread computes

// prepare(x) Wᵀ + bias + added, for matrices below each other. x: [rows, in], with a gate [rows, 2 · in]; matrices: [out, in]
// or bytes [out, bytes of a row], all of the same width; bias: [all outs]; norm: [in]; added and result: [rows, all outs].
at::Tensor product(const at::Tensor& x, at::TensorList matrices, at::IntArrayRef kinds,
                   const std::optional<at::Tensor>& bias, const std::optional<at::Tensor>& norm, double epsilon,
                   int64_t gate, const std::optional<at::Tensor>& added) {
  const Inputs inputs(x.contiguous(), kinds, norm, epsilon, gate);
  const int64_t count = inputs.count;
  int64_t outputs = 0;
  for (const auto& matrix : matrices) outputs += matrix.size(0);
  at::Tensor result = at::empty({count, outputs}, x.options());
  float* y = result.data_ptr<float>();
  const float *biases = numbers(bias), *stream = numbers(added);
  const int64_t parts = (outputs + TOGETHER - 1) / TOGETHER;
  at::parallel_for(0, parts, std::max<int64_t>(1, 32768 / TOGETHER / inputs.width), [&](int64_t first_part, int64_t last_part) {
    const int64_t begin = first_part * TOGETHER, end = std::min(last_part * TOGETHER, outputs);
    int64_t start = 0;
    for (size_t i = 0; i < matrices.size(); ++i) {
      const int64_t rows = matrices[i].size(0), apart = bytes_apart(matrices[i]);
      const int64_t from = std::max<int64_t>(begin - start, 0), to = std::min(end - start, rows);
      if (from < to) inputs.times(kinds[i], bytes_of(matrices[i]) + from * apart, apart, to - from, y + start + from, outputs);
      start += rows;
    }
    for (int64_t r = 0; r < count; ++r) {
      float* row = y + r * outputs;
      if (biases != nullptr) sum_up(biases + begin, row + begin, end - begin);
      if (stream != nullptr) sum_up(stream + r * outputs + begin, row + begin, end - begin);
    }
  });
  return result;
}

// ----------------------------------------------------------------------------------------------------------- summary

// A soft cap on logits; 0: none.
void cap_all(float* logits, int64_t count, float cap) {
  if (cap == 0) return;
  each_vector(count, [&](int64_t i, int64_t n) {
    (Vector(cap) * (Vector::loadu(logits + i, n) / Vector(cap)).tanh()).store(logits + i, n);
  });
}

// What is said of the logits x Wᵀ. x: [rows, in]; matrix: [outs, in] or bytes; asked: ids, [rows, n]; top: how many. Returns
// the largest logits and their ids, [rows, top]; logits asked for and how many are larger, [rows, n]; log of the sum of
// exp(logits), and the entropy of their softmax in nats, [rows].
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> summary(
    const at::Tensor& x, const at::Tensor& matrix, int64_t kind, const at::Tensor& asked, int64_t top, double cap) {
  const Inputs inputs(x.contiguous(), {kind}, std::nullopt, 0, NONE);
  const int64_t count = inputs.count, outputs = matrix.size(0), apart = bytes_apart(matrix), n = asked.size(1);
  const int64_t most = std::min(top, outputs), row_bytes = matrix.size(1) * matrix.element_size();
  const at::Tensor wanted = asked.contiguous();
  const int64_t* ids = wanted.const_data_ptr<int64_t>();

  // What is asked for is computed first, from the rows in question.
  std::vector<int64_t> distinct(ids, ids + count * n);
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<uint8_t> some(distinct.size() * row_bytes);
  for (size_t i = 0; i < distinct.size(); ++i) std::memcpy(some.data() + i * row_bytes, bytes_of(matrix) + distinct[i] * apart, row_bytes);
  std::vector<float> columns(count * distinct.size());
  inputs.times(kind, some.data(), row_bytes, distinct.size(), columns.data(), distinct.size());
  cap_all(columns.data(), columns.size(), static_cast<float>(cap));
  at::Tensor own = at::empty({count, n}, x.options());
  float* own_logits = own.data_ptr<float>();
  for (int64_t i = 0; i < count * n; ++i) {
    const auto place = std::lower_bound(distinct.begin(), distinct.end(), ids[i]) - distinct.begin();
    own_logits[i] = columns[i / n * distinct.size() + place];
  }

  Known nothing;
  nothing.above.resize(n);
  const int64_t parts = (outputs + SUMMED - 1) / SUMMED, shares = std::min<int64_t>(at::get_num_threads(), parts);
  std::vector<std::vector<Known>> known(shares, std::vector<Known>(count, nothing));
  at::parallel_for(0, shares, 1, [&](int64_t first_share, int64_t last_share) {
    std::vector<float> logits(count * SUMMED, NEVER);
    for (int64_t share = first_share; share < last_share; ++share)
      for (int64_t part = share * parts / shares; part < (share + 1) * parts / shares; ++part) {
        const int64_t begin = part * SUMMED, some_outputs = std::min(SUMMED, outputs - begin);
        if (some_outputs < SUMMED) std::fill(logits.begin(), logits.end(), NEVER);
        inputs.times(kind, bytes_of(matrix) + begin * apart, apart, some_outputs, logits.data(), SUMMED);
        for (int64_t r = 0; r < count; ++r) {
          float* row = logits.data() + r * SUMMED;
          cap_all(row, some_outputs, static_cast<float>(cap));
          known[share][r].add(row, begin, some_outputs, most, own_logits + r * n);
        }
      }
  });

  at::Tensor values = at::empty({count, most}, x.options()), places = at::empty({count, most}, wanted.options());
  at::Tensor above = at::empty({count, n}, wanted.options()), log_mass = at::empty({count}, x.options()), nats = at::empty_like(log_mass);
  for (int64_t r = 0; r < count; ++r) {
    Known& one = known[0][r];
    for (int64_t share = 1; share < shares; ++share) one.join(known[share][r], most);
    for (int64_t i = 0; i < most; ++i) {
      values.data_ptr<float>()[r * most + i] = one.top[i].first;
      places.data_ptr<int64_t>()[r * most + i] = one.top[i].second;
    }
    std::copy(one.above.begin(), one.above.end(), above.data_ptr<int64_t>() + r * n);
    log_mass.data_ptr<float>()[r] = static_cast<float>(one.largest + std::log(one.mass));
    nats.data_ptr<float>()[r] = static_cast<float>(std::log(one.mass) - one.weighted / one.mass);
  }
  return {values, places, own, above, log_mass, nats};
}

// --------------------------------------------------------------------------------------------------------- attention

// As scaled_dot_product_attention. queries: [lanes, kv heads, group, size]; keys, values: [lanes, kv heads, length, size],
// size a multiple of 16; mask: added to scores, [lanes or 1, 1, group, length], the same for a whole group. The last
// `siblings` positions are seen by one query each: the first by the first of every so many, and so on. Returns
// [lanes, kv heads · group · size]. Chunks of positions are shared out among the threads and put together at the end.
at::Tensor attention(const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                     const std::optional<at::Tensor>& mask, double scale, int64_t siblings) {
  const at::Tensor q = queries.contiguous();
  const int64_t lanes = q.size(0), heads = q.size(1), group = q.size(2), size = q.size(3), length = keys.size(2) - siblings;
  const int64_t chunks = (length + CHUNK - 1) / CHUNK, stride = size + SEEN_AT;
  const int64_t blocks = (group + 3) / 4, together = (group + blocks - 1) / blocks;  // of queries
  const auto there = [&](const at::Tensor& kept, int64_t lane, int64_t head, int64_t position) {
    return kept.const_data_ptr<float>() + lane * kept.stride(0) + head * kept.stride(1) + position * kept.stride(2);
  };
  const float* asked = q.const_data_ptr<float>();
  std::vector<float> parts(lanes * heads * chunks * group * stride);
  at::parallel_for(0, lanes * heads * chunks * blocks, 16, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task % blocks * together, count = std::min(together, group - first), of_chunk = task / blocks;
      const int64_t lane = of_chunk / chunks / heads, head = of_chunk / chunks % heads, from = of_chunk % chunks * CHUNK;
      const float* hidden =
          mask ? mask->const_data_ptr<float>() + (mask->size(0) > 1 ? lane * mask->stride(0) : 0) + from : nullptr;
      const float* of = asked + ((lane * heads + head) * group + first) * size;
      float* part = parts.data() + (of_chunk * group + first) * stride;
      const auto run = count == 4 ? chunk_of<4> : count == 3 ? chunk_of<3> : count == 2 ? chunk_of<2> : chunk_of<1>;
      run(of, there(keys, lane, head, from), there(values, lane, head, from), keys.stride(2), std::min(CHUNK, length - from),
          size, hidden, static_cast<float>(scale), first == 0, part, stride);
    }
  });
  at::Tensor result = at::empty({lanes, heads * group * size}, q.options());
  float* found = result.data_ptr<float>();
  at::parallel_for(0, lanes * heads * group, std::max<int64_t>(1, 65536 / size / (chunks + 1)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* part = parts.data() + (row / group * chunks * group + row % group) * stride;
      float *seen = found + row * size, largest = chunks > 0 ? part[LARGEST_AT] : -INFINITY, sum = 0, own = 0;
      for (int64_t c = 1; c < chunks; ++c) largest = std::max(largest, part[c * group * stride + LARGEST_AT]);
      const int64_t lane = row / group / heads, head = row / group % heads, place = length + (siblings ? row % group % siblings : 0);
      if (siblings) {
        const float* key = there(keys, lane, head, place);
        for (int64_t d = 0; d < size; ++d) own += asked[row * size + d] * key[d];
        own *= static_cast<float>(scale);
        largest = std::max(largest, own);
      }
      std::fill(seen, seen + size, 0.0f);
      const auto add = [&](float weight, const float* values_of) {
        for (int64_t d = 0; d < size; ++d) seen[d] += weight * values_of[d];
      };
      for (int64_t c = 0; c < chunks; ++c, part += group * stride) {
        const float weight = std::exp(part[LARGEST_AT] - largest);
        sum += weight * part[SUM_AT];
        add(weight, part + SEEN_AT);
      }
      if (siblings) {
        const float weight = std::exp(own - largest);
        sum += weight;
        add(weight, there(values, lane, head, place));
      }
      for (int64_t d = 0; d < size; ++d) seen[d] /= sum;
    }
  });
  return result;
}

}  // namespace

TORCH_LIBRARY(logitlab, library) {
  library.def(
      "product(Tensor x, Tensor[] matrices, int[] kinds, Tensor? bias, Tensor? norm, float epsilon, int gate, "
      "Tensor? added) -> Tensor");
  library.def(
      "summary(Tensor x, Tensor matrix, int kind, Tensor asked, int top, float cap) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("attention(Tensor queries, Tensor keys, Tensor values, Tensor? mask, float scale, int siblings) -> Tensor");
}

TORCH_LIBRARY_IMPL(logitlab, CPU, library) {
  library.impl("product", product);
  library.impl("summary", summary);
  library.impl("attention", attention);
}
