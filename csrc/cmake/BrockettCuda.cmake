# Finds nvcc, the CUDA run time, cuBLAS and cuSOLVER: in a CUDA toolkit, or in NVIDIA's PyPI wheels (cuda-toolkit[nvcc,crt,
# cccl,cudart,cublas,cusolver]), or nvcc in the one and the libraries in the other.
#
# In:   BROCKETT_CUDA = OFF | ON | AUTO: AUTO goes on without where something is missing, ON stops
#       BROCKETT_CUDA_WHEEL_ROOT (…/site-packages/nvidia/cu13; empty: looked for on Python's path)
#       CMAKE_CUDA_COMPILER, CUDACXX, CUDAToolkit_ROOT, CMAKE_CUDA_ARCHITECTURES work as ever
# Out:  BROCKETT_HAVE_CUDA, BROCKETT_CUDA_WHY (words for the log)
#       target brockett_cuda_libraries (INTERFACE): the static run time, cuBLAS, cuSOLVER and their headers; CUDA enabled
set(BROCKETT_HAVE_CUDA OFF)
set(BROCKETT_CUDA_WHY "off")
set(BROCKETT_CUDA_WHEEL_ROOT "" CACHE PATH "Folder nvidia/cu13 of NVIDIA's PyPI wheels; empty: looked for on Python's path")
# Every generation from Turing on, and PTX for what has none of these: Thor takes that of 7.5, what comes next that of 12.0.
set(BROCKETT_CUDA_ARCHITECTURES "75;80-real;86-real;89-real;90-real;100-real;120" CACHE STRING
    "GPU architectures of the plugin, as CMAKE_CUDA_ARCHITECTURES has them")

if(NOT BROCKETT_CUDA OR BROCKETT_CUDA STREQUAL "OFF")
  return()
endif()

# Says why, stops where the plugin was asked for, and leaves this file else.
macro(_brockett_no_cuda why)
  set(BROCKETT_CUDA_WHY "off (${why})")
  if(NOT BROCKETT_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "BROCKETT_CUDA=${BROCKETT_CUDA}, but ${why}. Install a CUDA toolkit, or "
                        "`pip install 'cuda-toolkit[nvcc,crt,cccl,cudart,cublas,cusolver]==13.0.*'` for the Python that "
                        "CMake finds (Python_EXECUTABLE=${Python_EXECUTABLE}), or configure with BROCKETT_CUDA=OFF.")
  endif()
  return()
endmacro()

# 1. Wheels. pip's isolated build environment is on PYTHONPATH, so a child Python sees it.
set(_roots ${BROCKETT_CUDA_WHEEL_ROOT})
if(NOT _roots AND Python_EXECUTABLE)
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "
import os, sys
folders = [os.path.join(p, 'nvidia', 'cu13') for p in sys.path]
print(';'.join(f for f in folders if os.path.isdir(f)))"
    OUTPUT_VARIABLE _roots OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()

# 2. nvcc
if(NOT CMAKE_CUDA_COMPILER)
  if(DEFINED ENV{CUDACXX})
    set(CMAKE_CUDA_COMPILER $ENV{CUDACXX})
  else()
    set(_bins "")
    foreach(_root IN LISTS _roots)
      list(APPEND _bins ${_root}/bin)
    endforeach()
    find_program(BROCKETT_NVCC nvcc HINTS ${CUDAToolkit_ROOT}/bin ENV CUDA_PATH ENV CUDA_HOME PATH_SUFFIXES bin
                 PATHS /usr/local/cuda/bin ${_bins})
    mark_as_advanced(BROCKETT_NVCC)
    if(NOT BROCKETT_NVCC)
      _brockett_no_cuda("no nvcc was found")
    endif()
    set(CMAKE_CUDA_COMPILER ${BROCKETT_NVCC})
  endif()
endif()

# 3. Libraries, before the language is enabled, from where there is no way back. CMake's own module follows the compiler;
# in wheels it finds nothing, for they hold libcublas.so.13 without the plain name: those are linked by their full path.
find_package(CUDAToolkit QUIET)
find_package(Threads REQUIRED)
add_library(brockett_cuda_libraries INTERFACE)
set(_found "")
if(TARGET CUDA::cublas AND TARGET CUDA::cusolver AND TARGET CUDA::cudart_static)
  target_link_libraries(brockett_cuda_libraries INTERFACE CUDA::cudart_static CUDA::cublas CUDA::cusolver)
  set(_found "toolkit ${CUDAToolkit_VERSION} in ${CUDAToolkit_LIBRARY_DIR}")
else()
  foreach(_root IN LISTS _roots)
    file(GLOB _cublas ${_root}/lib/libcublas.so.*)
    file(GLOB _cusolver ${_root}/lib/libcusolver.so.*)
    if(_found OR NOT _cublas OR NOT _cusolver OR NOT EXISTS ${_root}/include/cublas_v2.h
       OR NOT EXISTS ${_root}/include/cusolverDn.h)
      continue()
    endif()
    list(GET _cublas 0 _cublas)
    list(GET _cusolver 0 _cusolver)
    foreach(_name cublas cusolver)
      add_library(brockett_${_name} SHARED IMPORTED)
      set_target_properties(brockett_${_name} PROPERTIES IMPORTED_LOCATION ${_${_name}})
    endforeach()
    target_link_libraries(brockett_cuda_libraries INTERFACE brockett_cublas brockett_cusolver)
    if(EXISTS ${_root}/lib/libcudart_static.a AND EXISTS ${_root}/include/cuda_runtime_api.h)
      target_link_libraries(brockett_cuda_libraries INTERFACE ${_root}/lib/libcudart_static.a Threads::Threads
                                                              ${CMAKE_DL_LIBS} rt)
    elseif(TARGET CUDA::cudart_static)
      target_link_libraries(brockett_cuda_libraries INTERFACE CUDA::cudart_static)
    else()
      _brockett_no_cuda("libcudart_static.a was not found (PyPI: nvidia-cuda-runtime)")
    endif()
    target_include_directories(brockett_cuda_libraries SYSTEM INTERFACE ${_root}/include)
    if(CUDAToolkit_INCLUDE_DIRS)  # crt/host_defines.h comes with nvcc
      target_include_directories(brockett_cuda_libraries SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
    endif()
    set(_found "wheels in ${_root}")
  endforeach()
endif()
if(NOT _found)
  _brockett_no_cuda("cuBLAS and cuSOLVER were found neither in a CUDA toolkit nor as PyPI wheels")
endif()

# 4. The language. nvcc of the wheels looks into lib64, which they call lib.
foreach(_root IN LISTS _roots)
  string(FIND "${CMAKE_CUDA_COMPILER}" "${_root}/" _at)
  if(_at EQUAL 0)
    string(APPEND CMAKE_CUDA_FLAGS " -L\"${_root}/lib\"")
  endif()
endforeach()
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${BROCKETT_CUDA_ARCHITECTURES})
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25.1 (Debian 12) does not know that nvcc speaks C++20
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
if(CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 13.0 OR CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 14.0)
  message(WARNING "brockett is made for CUDA 13; this nvcc is of ${CMAKE_CUDA_COMPILER_VERSION}")
endif()
set(BROCKETT_HAVE_CUDA ON)
set(BROCKETT_CUDA_WHY "on (nvcc ${CMAKE_CUDA_COMPILER_VERSION}, ${_found}, architectures ${CMAKE_CUDA_ARCHITECTURES})")
