// Files that are taken for the CUDA plugin and must be refused: compiled with VARIANT_ABI, VARIANT_VERSION, or neither (no
// entry at all).
#include "linalg/cuda/plugin.hpp"

#ifdef VARIANT_ABI
namespace {
constexpr brockett::linalg::cuda::Plugin kPlugin{VARIANT_ABI, VARIANT_VERSION, {}, {}, {}, {}, {}, {}, {}, {}, {}};
}  // namespace

const brockett::linalg::cuda::Plugin* brockett_cuda_plugin() { return &kPlugin; }
#endif
