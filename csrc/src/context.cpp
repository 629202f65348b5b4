// Context: backend and interrupt check. Threads and the names of BLAS are the host backend's business (linalg/lapack).
#include "brockett/context.hpp"

#include "brockett/error.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

Context::Context() : Context(linalg::lapack_backend()) {}

Context::Context(std::shared_ptr<linalg::Backend> backend) : backend_(std::move(backend)) {
  if (!backend_) throw InvalidArgument("backend", "must not be null");
}

void Context::check_interrupt() const {
  if (interrupt_ && interrupt_()) throw Interrupted();
}

const char* version() { return BROCKETT_VERSION; }

}  // namespace brockett
