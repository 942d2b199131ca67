// What is said of logits without keeping them: a few outputs at a time are added to what is known of each row.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "operators_attention.h"

namespace {

constexpr int64_t SUMMED = 256;  // outputs at a time, whose logits stay in a core's cache
constexpr float NEVER = -1e30f;  // a logit that changes nothing

inline float largest_of(Vector vector) {
  return at::vec::vec_reduce_all<float>([](Vector a, Vector b) { return at::vec::maximum(a, b); }, vector);
}

// What is known of one row: the largest logit, the sum of exp(logit - largest) and of that times (logit - largest), the
// most probable outputs, and how many logits are larger than each of some.
struct Known {
  float largest = -std::numeric_limits<float>::infinity();
  double mass = 0, weighted = 0;
  std::vector<std::pair<float, int64_t>> top;  // in order
  std::vector<int64_t> above;

  void turn_to(float other) {
    if (mass > 0) {
      const double factor = std::exp(static_cast<double>(largest) - other);
      weighted = (weighted + mass * (static_cast<double>(largest) - other)) * factor;
      mass *= factor;
    }
    largest = other;
  }

  void consider(float logit, int64_t output, size_t most) {
    if (top.size() == most && !(logit > top.back().first)) return;
    if (top.size() == most) top.pop_back();
    const auto after = [](float value, const std::pair<float, int64_t>& one) { return value > one.first; };
    top.insert(std::upper_bound(top.begin(), top.end(), logit, after), {logit, output});
  }

  // SUMMED logits, of which `count` are outputs from `first` on; `asked`: the logits that others are compared with.
  void add(const float* logits, int64_t first, int64_t count, size_t most, const float* asked) {
    Vector most_here(NEVER);
    for (int64_t i = 0; i < SUMMED; i += Vector::size()) most_here = at::vec::maximum(most_here, Vector::loadu(logits + i));
    const float here = largest_of(most_here);
    if (!(here <= largest)) turn_to(here);
    Vector sum(0), times(0);
    for (int64_t i = 0; i < SUMMED; i += Vector::size()) {
      const Vector below = Vector::loadu(logits + i) - Vector(largest), weight = below.exp_u20();
      sum = sum + weight;
      times = at::vec::fmadd(weight, below, times);
    }
    mass += sum_of(sum), weighted += sum_of(times);
    if (top.size() < most || !(here <= top.back().first))
      for (int64_t i = 0; i < count; i += Vector::size())
        if (top.size() < most || !(largest_of(Vector::loadu(logits + i)) <= top.back().first))
          for (int64_t j = i; j < std::min(count, i + Vector::size()); ++j) consider(logits[j], first + j, most);
    for (size_t a = 0; a < above.size(); ++a) {
      Vector larger(0);
      for (int64_t i = 0; i < SUMMED; i += Vector::size())
        larger = larger + ((Vector::loadu(logits + i) > Vector(asked[a])) & Vector(1));
      above[a] += static_cast<int64_t>(sum_of(larger));
    }
  }

  void join(Known& other, size_t most) {
    other.turn_to(std::max(largest, other.largest));
    turn_to(other.largest);
    mass += other.mass, weighted += other.weighted;
    for (const auto& [logit, output] : other.top) consider(logit, output, most);
    for (size_t a = 0; a < above.size(); ++a) above[a] += other.above[a];
  }
};

}  // namespace
