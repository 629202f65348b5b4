// cuBLAS on the BLAS of the build.
#include <cublas_v2.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

#include "device.hpp"
#include "handles.hpp"
#include "linalg/half.hpp"
#include "linalg/lapack/blas.hpp"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace cuda_shim {
namespace {

using brockett::linalg::lapack::blas_int;
using brockett::linalg::lapack::Fortran;
using BlasHandles = Handles<cublasHandle_t, LibraryHandle>;
using Lock = std::lock_guard<std::recursive_mutex>;
using Index = std::int64_t;

#define ENTER                                                                             \
  const Lock guard(lock());                                                               \
  if (const int injected = enter(function)) return static_cast<cublasStatus_t>(injected); \
  const cudaStream_t stream = BlasHandles::get().of(handle, function).stream_for(function)

char letter(cublasOperation_t op) { return op == CUBLAS_OP_N ? 'N' : 'T'; }
char letter(cublasFillMode_t uplo) { return uplo == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U'; }
bool is_real(cublasOperation_t op) { return op == CUBLAS_OP_N || op == CUBLAS_OP_T || op == CUBLAS_OP_C; }
blas_int narrow(Index n) { return static_cast<blas_int>(n); }

/// Rows and columns of the matrix whose op is rows x cols.
struct Shape {
  Index rows, cols;
};
Shape stored(cublasOperation_t op, Index rows, Index cols) {
  return op == CUBLAS_OP_N ? Shape{rows, cols} : Shape{cols, rows};
}
bool fits(Shape s, Index ld) { return s.rows >= 0 && s.cols >= 0 && ld >= std::max<Index>(1, s.rows); }

// In host pointer mode scalars are read during the call.
template <class T>
T scalar(Call& call, const char* name, const T* p) {
  call.host(name, p, sizeof(T));
  return *p;
}

template <class T>
void gemm(cublasOperation_t op_a, cublasOperation_t op_b, Index m, Index n, Index k, T alpha, const T* a, Index lda,
          const T* b, Index ldb, T beta, T* c, Index ldc) {
  const char ta = letter(op_a), tb = letter(op_b);
  const blas_int bm = narrow(m), bn = narrow(n), bk = narrow(k), la = narrow(lda), lb = narrow(ldb), lc = narrow(ldc);
  Fortran<T>::gemm(&ta, &tb, &bm, &bn, &bk, &alpha, a, &la, b, &lb, &beta, c, &lc, 1, 1);
}

template <class T>
cublasStatus_t gemm_call(const char* function, cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                         Index m, Index n, Index k, const T* alpha, const T* a, Index lda, Index stride_a, const T* b,
                         Index ldb, Index stride_b, const T* beta, T* c, Index ldc, Index stride_c, Index batch) {
  ENTER;
  const Shape sa = stored(op_a, m, k), sb = stored(op_b, k, n), sc{m, n};
  if (!is_real(op_a) || !is_real(op_b) || !fits(sa, lda) || !fits(sb, ldb) || !fits(sc, ldc) || batch < 0) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Call call(function, stream);
  const T x = scalar(call, "alpha", alpha), y = scalar(call, "beta", beta);
  if (m == 0 || n == 0 || batch == 0) return CUBLAS_STATUS_SUCCESS;
  if (batch > 1 && stride_c < (n - 1) * ldc + m && stride_c < m) return CUBLAS_STATUS_INVALID_VALUE;
  call.matrix("A", a, sa.rows, sa.cols, lda, batch, stride_a);
  call.matrix("B", b, sb.rows, sb.cols, ldb, batch, stride_b);
  call.matrix("C", c, m, n, ldc, batch, stride_c);
  call.run([=] {
    for (Index i = 0; i < batch; ++i) {
      gemm(op_a, op_b, m, n, k, x, a + i * stride_a, lda, b + i * stride_b, ldb, y, c + i * stride_c, ldc);
    }
  });
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t syrk_call(const char* function, cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t op,
                         Index n, Index k, const T* alpha, const T* a, Index lda, const T* beta, T* c, Index ldc) {
  ENTER;
  const Shape sa = stored(op, n, k);
  if (!is_real(op) || !fits(sa, lda) || !fits({n, n}, ldc)) return CUBLAS_STATUS_INVALID_VALUE;
  Call call(function, stream);
  const T x = scalar(call, "alpha", alpha), y = scalar(call, "beta", beta);
  if (n == 0) return CUBLAS_STATUS_SUCCESS;
  call.matrix("A", a, sa.rows, sa.cols, lda).matrix("C", c, n, n, ldc);
  call.run([=] {
    const char u = letter(uplo), t = letter(op);
    const blas_int bn = narrow(n), bk = narrow(k), la = narrow(lda), lc = narrow(ldc);
    Fortran<T>::syrk(&u, &t, &bn, &bk, &x, a, &la, &y, c, &lc, 1, 1);
  });
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t trsm_call(const char* function, cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo,
                         cublasOperation_t op, cublasDiagType_t diag, Index m, Index n, const T* alpha, const T* a,
                         Index lda, T* b, Index ldb) {
  ENTER;
  const Index order = side == CUBLAS_SIDE_LEFT ? m : n;
  if (!is_real(op) || !fits({order, order}, lda) || !fits({m, n}, ldb)) return CUBLAS_STATUS_INVALID_VALUE;
  Call call(function, stream);
  const T x = scalar(call, "alpha", alpha);
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  call.matrix("A", a, order, order, lda).matrix("B", b, m, n, ldb);
  call.run([=] {
    const char s = side == CUBLAS_SIDE_LEFT ? 'L' : 'R', u = letter(uplo), t = letter(op);
    const char d = diag == CUBLAS_DIAG_UNIT ? 'U' : 'N';
    const blas_int bm = narrow(m), bn = narrow(n), la = narrow(lda), lb = narrow(ldb);
    Fortran<T>::trsm(&s, &u, &t, &d, &bm, &bn, &x, a, &la, b, &lb, 1, 1, 1, 1);
  });
  return CUBLAS_STATUS_SUCCESS;
}

// C <- alpha op(A) + beta op(B). Where a factor is 0 its matrix is not read; C may be A or B where that one's op is N.
template <class T>
cublasStatus_t geam_call(const char* function, cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                         Index m, Index n, const T* alpha, const T* a, Index lda, const T* beta, const T* b, Index ldb,
                         T* c, Index ldc) {
  ENTER;
  const Shape sa = stored(op_a, m, n), sb = stored(op_b, m, n);
  if (!is_real(op_a) || !is_real(op_b) || !fits(sa, lda) || !fits(sb, ldb) || !fits({m, n}, ldc)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if ((c == a && (op_a != CUBLAS_OP_N || lda != ldc)) || (c == b && (op_b != CUBLAS_OP_N || ldb != ldc))) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Call call(function, stream);
  const T x = scalar(call, "alpha", alpha), y = scalar(call, "beta", beta);
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  if (x != 0) call.matrix("A", a, sa.rows, sa.cols, lda);
  if (y != 0) call.matrix("B", b, sb.rows, sb.cols, ldb);
  call.matrix("C", c, m, n, ldc);
  call.run([=] {
    const auto at = [](const T* p, Index ld, cublasOperation_t op, Index i, Index j) {
      return op == CUBLAS_OP_N ? p[i + j * ld] : p[j + i * ld];
    };
    for (Index j = 0; j < n; ++j) {
      for (Index i = 0; i < m; ++i) {
        c[i + j * ldc] = (x != 0 ? x * at(a, lda, op_a, i, j) : T{0}) + (y != 0 ? y * at(b, ldb, op_b, i, j) : T{0});
      }
    }
  });
  return CUBLAS_STATUS_SUCCESS;
}

// What the tensor units read of a float: 10 bits of mantissa, here rounded to nearest. (The hardware may also cut the
// rest off: twice this error, which tolerances must allow for.)
float tf32(float x) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  return std::isfinite(x) ? std::bit_cast<float>((bits + 0xFFFu + (bits >> 13 & 1u)) & ~0x1FFFu) : x;
}

float widened(cudaDataType type, cublasComputeType_t compute, const void* p, Index i) {
  using namespace brockett::linalg;
  switch (type) {
    case CUDA_R_16F:
      return half_to_float(static_cast<const std::uint16_t*>(p)[i]);
    case CUDA_R_16BF:
      return bfloat16_to_float(static_cast<const std::uint16_t*>(p)[i]);
    default: {
      const float x = static_cast<const float*>(p)[i];
      return compute == CUBLAS_COMPUTE_32F_FAST_TF32   ? tf32(x)
             : compute == CUBLAS_COMPUTE_32F_FAST_16BF ? bfloat16_to_float(float_to_bfloat16(x))
                                                       : x;
    }
  }
}

std::size_t size_of(cudaDataType type) { return type == CUDA_R_32F ? sizeof(float) : sizeof(std::uint16_t); }

/// A matrix of any of the three types as packed floats.
std::vector<float> packed(cudaDataType type, cublasComputeType_t compute, const void* p, Shape s, Index ld) {
  std::vector<float> out(static_cast<std::size_t>(s.rows * s.cols));
  for (Index j = 0; j < s.cols; ++j) {
    for (Index i = 0; i < s.rows; ++i)
      out[static_cast<std::size_t>(i + j * s.rows)] = widened(type, compute, p, i + j * ld);
  }
  return out;
}

}  // namespace
}  // namespace cuda_shim

using namespace cuda_shim;

EXPORT cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cublasStatus_t>(injected);
  if (driver_state() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!may_allocate()) return CUBLAS_STATUS_ALLOC_FAILED;
  *handle = BlasHandles::get().create({current_device()});
  return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const Lock guard(lock());
  BlasHandles::get().destroy(handle, __func__);
  return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasGetProperty(libraryPropertyType type, int* value) {
  *value = type == MAJOR_VERSION ? 13 : type == MINOR_VERSION ? 1 : 0;
  return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cublasStatus_t>(injected);
  stream_of(stream, __func__);
  BlasHandles::get().of(handle, __func__).stream = stream;
  return CUBLAS_STATUS_SUCCESS;
}
EXPORT cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  const Lock guard(lock());
  if (const int injected = enter(__func__)) return static_cast<cublasStatus_t>(injected);
  BlasHandles::get().of(handle, __func__);
  return mode == CUBLAS_DEFAULT_MATH || mode == CUBLAS_PEDANTIC_MATH ? CUBLAS_STATUS_SUCCESS
                                                                     : CUBLAS_STATUS_NOT_SUPPORTED;
}
EXPORT const char* cublasGetStatusName(cublasStatus_t status) {
#define SHIM_ENUM(type)
#define SHIM_VALUE(name, value) {#name, value},
#define SHIM_END
  static constexpr struct {
    const char* name;
    int value;
  } names[] = {
#include "declared/cublas_values.inc"
  };
#undef SHIM_ENUM
#undef SHIM_VALUE
#undef SHIM_END
  for (const auto& entry : names) {  // the statuses stand first
    if (entry.value == static_cast<int>(status)) return entry.name;
  }
  return "unknown status";
}

#define PRECISION(X, T)                                                                                              \
  EXPORT cublasStatus_t cublas##X##gemm_v2_64(                                                                       \
      cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m, int64_t n, int64_t k,        \
      const T* alpha, const T* a, int64_t lda, const T* b, int64_t ldb, const T* beta, T* c, int64_t ldc) {          \
    return gemm_call(__func__, handle, op_a, op_b, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0, 1);        \
  }                                                                                                                  \
  EXPORT cublasStatus_t cublas##X##gemmStridedBatched_64(                                                            \
      cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m, int64_t n, int64_t k,        \
      const T* alpha, const T* a, int64_t lda, long long int stride_a, const T* b, int64_t ldb,                      \
      long long int stride_b, const T* beta, T* c, int64_t ldc, long long int stride_c, int64_t batch) {             \
    return gemm_call(__func__, handle, op_a, op_b, m, n, k, alpha, a, lda, stride_a, b, ldb, stride_b, beta, c, ldc, \
                     stride_c, batch);                                                                               \
  }                                                                                                                  \
  EXPORT cublasStatus_t cublas##X##syrk_v2_64(cublasHandle_t handle, cublasFillMode_t uplo, cublasOperation_t op,    \
                                              int64_t n, int64_t k, const T* alpha, const T* a, int64_t lda,         \
                                              const T* beta, T* c, int64_t ldc) {                                    \
    return syrk_call(__func__, handle, uplo, op, n, k, alpha, a, lda, beta, c, ldc);                                 \
  }                                                                                                                  \
  EXPORT cublasStatus_t cublas##X##trsm_v2_64(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t uplo,   \
                                              cublasOperation_t op, cublasDiagType_t diag, int64_t m, int64_t n,     \
                                              const T* alpha, const T* a, int64_t lda, T* b, int64_t ldb) {          \
    return trsm_call(__func__, handle, side, uplo, op, diag, m, n, alpha, a, lda, b, ldb);                           \
  }                                                                                                                  \
  EXPORT cublasStatus_t cublas##X##geam_64(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,    \
                                           int64_t m, int64_t n, const T* alpha, const T* a, int64_t lda,            \
                                           const T* beta, const T* b, int64_t ldb, T* c, int64_t ldc) {              \
    return geam_call(__func__, handle, op_a, op_b, m, n, alpha, a, lda, beta, b, ldb, c, ldc);                       \
  }
PRECISION(S, float)
PRECISION(D, double)
#undef PRECISION

EXPORT cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int64_t m,
                                      int64_t n, int64_t k, const void* alpha, const void* a, cudaDataType type_a,
                                      int64_t lda, const void* b, cudaDataType type_b, int64_t ldb, const void* beta,
                                      void* c, cudaDataType type_c, int64_t ldc, cublasComputeType_t compute,
                                      cublasGemmAlgo_t) {
  const char* function = __func__;
  ENTER;
  // of cuBLAS's table: float32 sums of float32, float16 or bfloat16 factors; the fast types for float32 factors alone
  const bool half = type_a == CUDA_R_16F || type_a == CUDA_R_16BF;
  const bool fast = compute == CUBLAS_COMPUTE_32F_FAST_TF32 || compute == CUBLAS_COMPUTE_32F_FAST_16BF;
  const bool known = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC || fast;
  if (type_a != type_b || type_c != CUDA_R_32F || !known || (!half && type_a != CUDA_R_32F) || (half && fast)) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  const Shape sa = stored(op_a, m, k), sb = stored(op_b, k, n);
  if (!is_real(op_a) || !is_real(op_b) || !fits(sa, lda) || !fits(sb, ldb) || !fits({m, n}, ldc)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  Call call(function, stream);
  const float x = scalar(call, "alpha", static_cast<const float*>(alpha));
  const float y = scalar(call, "beta", static_cast<const float*>(beta));
  if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
  call.device("A", a, sa.rows, sa.cols, lda, size_of(type_a)).device("B", b, sb.rows, sb.cols, ldb, size_of(type_b));
  call.matrix("C", static_cast<float*>(c), m, n, ldc);
  call.run([=] {
    const std::vector<float> A = packed(type_a, compute, a, sa, lda), B = packed(type_b, compute, b, sb, ldb);
    gemm(op_a, op_b, m, n, k, x, A.data(), std::max<Index>(1, sa.rows), B.data(), std::max<Index>(1, sb.rows), y,
         static_cast<float*>(c), ldc);
  });
  return CUBLAS_STATUS_SUCCESS;
}
