// Key functions: one copy of each exception's type information, in libbrockett, so that a catch in another library
// sees it.
#include "brockett/error.hpp"

namespace brockett {

Error::~Error() = default;
InvalidArgument::~InvalidArgument() = default;
NonFinite::~NonFinite() = default;
NotConverged::~NotConverged() = default;
OutOfMemory::~OutOfMemory() = default;
Unsupported::~Unsupported() = default;
EngineUnavailable::~EngineUnavailable() = default;
Interrupted::~Interrupted() = default;

}  // namespace brockett
