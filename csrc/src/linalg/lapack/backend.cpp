// The host backend: BLAS and LAPACK in both precisions, and workers.
#include <memory>
#include <string>

#include "linalg/lapack/lane_eigen.hpp"
#include "linalg/lapack/lapack_linalg.hpp"
#include "linalg/lapack/threads.hpp"

namespace brockett::linalg {
namespace {

class LapackBackend final : public Backend {
 public:
  std::string name() const override { return "lapack"; }
  LinAlg<float>& single() override { return single_; }
  LinAlg<double>& full() override { return full_; }
  void for_each(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll) override {
    if (count > 0) lapack::run_on_workers(count, f, poll);
  }
  index_t batch_size(std::size_t) const override { return 1; }
  index_t eigen_batch(index_t n) const override { return lapack::lane_eigen_batch(n); }
  std::shared_ptr<void> thread_scope(index_t n) override { return lapack::threads_for_order(n); }
  std::shared_ptr<void> narrow_scope() override { return lapack::share_narrow_products(); }

 private:
  lapack::Spectral<float> single_;
  lapack::Spectral<double> full_;
};

}  // namespace

std::shared_ptr<Backend> lapack_backend() {
  static const std::shared_ptr<Backend> backend = std::make_shared<LapackBackend>();
  return backend;
}

}  // namespace brockett::linalg
