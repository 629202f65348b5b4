// brockett._core: a thin layer over libbrockett, one file per topic. No mathematics in here.
#include "bindings.hpp"

PYBIND11_MODULE(_core, m) {
  using namespace brockett::python;
  m.doc() = "Compiled engine of brockett on BLAS/LAPACK. Private: use the functions of brockett itself.";
  bind_errors(m);
  bind_device_array(m);  // before those whose signatures name it
  bind_machine(m);
  bind_autocorrelation(m);
  bind_patch_autocorrelation(m);
  bind_svd(m);
  bind_eigen(m);
  bind_penalty(m);
  bind_convolution(m);
  bind_descramble(m);
  bind_random_matrix(m);
  bind_spectral_graph(m);
}
