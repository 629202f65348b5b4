#include "brockett/context.hpp"
#include "linalg/linalg.hpp"

namespace brockett {

void parallel_for(const Context& context, std::int64_t count, const std::function<void(std::int64_t)>& f) {
  context.check_interrupt();
  context.backend().for_each(count, f, [&] { context.check_interrupt(); });
}

}  // namespace brockett
