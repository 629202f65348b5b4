// The choice of svd's method "auto" against what the methods took. CPU seconds of single runs on float32 matrices with
// 200 power-law spikes above a Gaussian bulk, at the default tolerance, one core of a Zen 4 and OpenBLAS 0.3.34 with its
// AVX-512 kernels; 0: not measured, because far from the quickest.
#include "svd_costs.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace {

using namespace brockett;

struct Measured {
  index_t rows, cols, rank;
  double krylov, gram, exact;
  long long columns;  // that krylov needed
};

const Measured kMeasured[] = {
    {512, 2048, 64, 0.05, 0.03, 0, 368},      {512, 2048, 128, 0.075, 0.045, 0, 400},
    {1024, 1024, 16, 0.02, 0.095, 0, 240},    {1024, 1024, 128, 0.11, 0.125, 0, 560},
    {1024, 1024, 256, 0.305, 0.155, 0, 768},  {2048, 2048, 16, 0.1, 1.07, 0, 240},
    {2048, 2048, 128, 0.41, 1.11, 2.36, 784}, {2048, 2048, 512, 1.97, 1.36, 2.36, 1424},
    {2048, 2048, 1638, 0, 2.53, 2.36, 0},     {4096, 4096, 16, 0.33, 0, 0, 240},
    {4096, 4096, 128, 1.26, 9.03, 22.1, 864}, {4096, 4096, 512, 5.43, 10.6, 22.1, 1952},
    {4096, 4096, 1638, 0, 14.1, 22.1, 0},     {4096, 11008, 16, 1.19, 0, 0, 216},
    {4096, 11008, 128, 3.15, 11.8, 0, 832},   {4096, 11008, 512, 11.93, 14.4, 0, 2448},
    {4096, 11008, 1638, 0, 20.6, 37.0, 0},
};

TEST(SvdCosts, the_choice_is_within_a_quarter_of_the_quickest) {
  for (const Measured& m : kMeasured) {
    SCOPED_TRACE(testing::Message() << m.rows << " x " << m.cols << ", " << m.rank);
    const SvdCosts c = svd_costs<float>(m.rows, m.cols, m.rank);
    ASSERT_GT(c.gram, 0);
    double quickest = 1e300;
    for (const double seconds : {m.krylov, m.gram, m.exact}) {
      if (seconds > 0) quickest = std::min(quickest, seconds);
    }
    const double taken = c.krylov < c.gram ? m.krylov : m.gram;
    ASSERT_GT(taken, 0) << "takes what is far from the quickest";
    EXPECT_LE(taken, 1.25 * quickest);
  }
}

TEST(SvdCosts, estimates_are_of_the_size_of_what_was_measured) {
  for (const Measured& m : kMeasured) {
    SCOPED_TRACE(testing::Message() << m.rows << " x " << m.cols << ", " << m.rank);
    const SvdCosts c = svd_costs<float>(m.rows, m.cols, m.rank);
    const auto near = [](double estimate, double measured) {
      if (measured == 0) return;
      EXPECT_LE(estimate, 2.2 * measured);
      EXPECT_GE(2.2 * estimate, measured);
    };
    near(c.krylov, m.krylov);
    near(c.gram, m.gram);
    near(c.exact, m.exact);
    near(static_cast<double>(c.columns), static_cast<double>(m.columns));
  }
}

TEST(SvdCosts, do_not_depend_on_orientation_and_gram_is_for_float) {
  const SvdCosts wide = svd_costs<float>(300, 900, 20), tall = svd_costs<float>(900, 300, 20);
  EXPECT_EQ(wide.krylov, tall.krylov);
  EXPECT_EQ(wide.gram, tall.gram);
  EXPECT_EQ(wide.exact, tall.exact);
  EXPECT_EQ(svd_costs<double>(900, 300, 20).gram, 0);
  EXPECT_EQ(svd_costs<float>(300, 300, 300).gram, 0);  // all triplets of a square matrix
  EXPECT_LE(svd_costs<float>(300, 300, 300).columns, 300);
}

}  // namespace
