// The kernels without nvcc: loops that the shim queues. The same functors, the same arithmetic.
#include "linalg/cuda/kernels.cu"
