#include "check.hpp"

namespace brockett {

using linalg::Buffer;
using linalg::Mat;

Buffer<double> symmetric_copy(linalg::Backend& backend, const char* name, MatrixView<const double> A) {
  auto& la = backend.full();
  const double magnitude = check_matrix(backend, name, A);
  check_square(name, A.rows, A.cols, A.rows);
  const Mat<const double> M = columns_of(A);
  Buffer<double> S(la, M.rows, M.cols), difference(la, M.rows, M.cols);
  la.transpose(M, S);
  la.copy(S, difference);
  la.add(-1.0, M, difference);
  const double asymmetry = la.max_abs(difference);
  if (asymmetry > 1e-8 * magnitude) {
    char text[160];
    std::snprintf(text, sizeof text, "must be symmetric; its largest asymmetry is %.3g of an entry of %.3g", asymmetry,
                  magnitude);
    throw InvalidArgument(name, text);
  }
  // halves first: A + A^T may overflow where (A + A^T) / 2 does not
  la.scale(0.5, S);
  la.add(0.5, M, S);
  return S;
}

}  // namespace brockett
