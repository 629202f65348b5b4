# Finds a BLAS/LAPACK and says how its symbols are spelled.
#
# In:   BROCKETT_BLAS = AUTO | system | scipy-openblas64 | scipy-openblas32
#       AUTO takes the PyPI copy of OpenBLAS in a wheel build; elsewhere whatever find_package(LAPACK) finds, and the PyPI
#       copy where that finds nothing. BLA_VENDOR, BLA_SIZEOF_INTEGER, BLAS_LIBRARIES, LAPACK_LIBRARIES work as ever.
# Out:  target brockett_lapack (INTERFACE) with the definitions
#         BROCKETT_BLAS_PREFIX, BROCKETT_BLAS_SUFFIX   Fortran name of dgemm: PREFIX ## dgemm ## SUFFIX
#         BROCKETT_BLAS_ILP64                          integers are 64 bits wide
#         BROCKETT_BLAS_OPENBLAS, BROCKETT_OPENBLAS_CSUFFIX   PREFIX ## openblas_set_num_threads ## CSUFFIX is there
#         BROCKETT_HAVE_TWO_STAGE                      the two-stage eigensolver is there
#       BROCKETT_BLAS_CHOSEN (words for the log), BROCKETT_BLAS_BUNDLE (files to install beside libbrockett) and
#       BROCKETT_BLAS_LICENSES (their licence)
include(CheckCXXSourceCompiles)
add_library(brockett_lapack INTERFACE)
set(BROCKETT_BLAS_BUNDLE "")
set(BROCKETT_BLAS_LICENSES "")
set(BROCKETT_BLAS_CHOSEN "")

if(NOT BROCKETT_BLAS MATCHES "^(AUTO|system|scipy-openblas64|scipy-openblas32)$")
  message(FATAL_ERROR "BROCKETT_BLAS=${BROCKETT_BLAS}: expected AUTO, system, scipy-openblas64 or scipy-openblas32")
endif()

# Does `symbol` link against `libraries`? A declaration of any type serves: nothing is run.
function(_brockett_check_symbol symbol libraries result)
  set(CMAKE_REQUIRED_LIBRARIES ${libraries})
  set(CMAKE_REQUIRED_QUIET ON)
  check_cxx_source_compiles("extern \"C\" void ${symbol}(); int main() { ${symbol}(); }" ${result})
endfunction()

function(_brockett_use_scipy_openblas bits)
  if(NOT Python_EXECUTABLE)
    return()
  endif()
  # find_spec, not import: nothing is loaded. Prints the package's folder and its licence.
  execute_process(
    COMMAND ${Python_EXECUTABLE} -c "
import importlib.metadata as metadata, importlib.util as util, os
spec = util.find_spec('scipy_openblas${bits}')
if spec:
    files = metadata.files('scipy-openblas${bits}') or []
    licence = [str(f.locate()) for f in files if 'LICENSE' in f.name.upper()]
    print(os.path.dirname(spec.origin), *licence[:1], sep=';')"
    OUTPUT_VARIABLE _found OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed ERROR_QUIET)
  if(_failed OR NOT _found)
    return()
  endif()
  list(LENGTH _found _n)
  if(_n LESS 2)
    message(FATAL_ERROR "scipy-openblas${bits} carries no licence file, and must not be shipped without: ${_found}")
  endif()
  list(GET _found 0 _dir)
  list(GET _found 1 _licence)
  # Wheels of some platforms bring libgfortran and libquadmath along, in the same folder.
  file(GLOB _bundle ${_dir}/lib/*${CMAKE_SHARED_LIBRARY_SUFFIX} ${_dir}/lib/*${CMAKE_SHARED_LIBRARY_SUFFIX}.*)
  file(GLOB _library ${_dir}/lib/libscipy_openblas*${CMAKE_SHARED_LIBRARY_SUFFIX})
  if(NOT _library)
    return()
  endif()
  target_link_libraries(brockett_lapack INTERFACE ${_library})
  target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_PREFIX=scipy_ BROCKETT_BLAS_OPENBLAS=1)
  if(bits EQUAL 64)
    target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_SUFFIX=_64_ BROCKETT_OPENBLAS_CSUFFIX=64_
                                                         BROCKETT_BLAS_ILP64=1)
    _brockett_check_symbol(scipy_dsytrd_sb2st_64_ "${_library}" BROCKETT_SCIPY64_2STAGE)
  else()
    target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_SUFFIX=_ BROCKETT_OPENBLAS_CSUFFIX=)
    _brockett_check_symbol(scipy_dsytrd_sb2st_ "${_library}" BROCKETT_SCIPY32_2STAGE)
  endif()
  if(BROCKETT_SCIPY${bits}_2STAGE)
    target_compile_definitions(brockett_lapack INTERFACE BROCKETT_HAVE_TWO_STAGE=1)
  endif()
  set(BROCKETT_BLAS_BUNDLE ${_bundle} PARENT_SCOPE)
  set(BROCKETT_BLAS_LICENSES ${_licence} PARENT_SCOPE)
  set(BROCKETT_BLAS_CHOSEN "scipy-openblas${bits} (${_library})" PARENT_SCOPE)
endfunction()

function(_brockett_use_system)
  if(BROCKETT_BLAS STREQUAL "system")
    find_package(LAPACK REQUIRED)
  else()
    find_package(LAPACK)
  endif()
  if(NOT LAPACK_FOUND)
    return()
  endif()
  set(_libraries ${LAPACK_LIBRARIES} ${LAPACK_LINKER_FLAGS})
  target_link_libraries(brockett_lapack INTERFACE ${_libraries})
  target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_PREFIX=)
  if(BLA_SIZEOF_INTEGER EQUAL 8)
    target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_ILP64=1)
  endif()
  # 64-bit builds of distributions spell dgemm_ or dgemm_64_; ask, do not guess.
  _brockett_check_symbol(dsyevd_ "${_libraries}" BROCKETT_SYSTEM_PLAIN)
  _brockett_check_symbol(dsyevd_64_ "${_libraries}" BROCKETT_SYSTEM_64)
  if(BLA_SIZEOF_INTEGER EQUAL 8 AND BROCKETT_SYSTEM_64)
    set(_suffix _64_)
    set(_csuffix 64_)
  elseif(BROCKETT_SYSTEM_PLAIN)
    set(_suffix _)
    set(_csuffix "")
  else()
    message(FATAL_ERROR "neither dsyevd_ nor dsyevd_64_ links against ${_libraries}")
  endif()
  target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_SUFFIX=${_suffix})
  _brockett_check_symbol(dsytrd_sb2st${_suffix} "${_libraries}" BROCKETT_SYSTEM_2STAGE${_suffix})
  if(BROCKETT_SYSTEM_2STAGE${_suffix})
    target_compile_definitions(brockett_lapack INTERFACE BROCKETT_HAVE_TWO_STAGE=1)
  endif()
  # By the library's own name only: behind a generic libblas.so the administrator may put another BLAS tomorrow, and
  # openblas_set_num_threads with it.
  if("${_libraries}" MATCHES "openblas")
    _brockett_check_symbol(openblas_set_num_threads${_csuffix} "${_libraries}" BROCKETT_SYSTEM_OPENBLAS${_csuffix})
    if(BROCKETT_SYSTEM_OPENBLAS${_csuffix})
      target_compile_definitions(brockett_lapack INTERFACE BROCKETT_BLAS_OPENBLAS=1
                                                           BROCKETT_OPENBLAS_CSUFFIX=${_csuffix})
    endif()
  endif()
  set(BROCKETT_BLAS_CHOSEN "system (${_libraries})" PARENT_SCOPE)
endfunction()

if(BROCKETT_BLAS STREQUAL "scipy-openblas64" OR (BROCKETT_BLAS STREQUAL "AUTO" AND SKBUILD))
  _brockett_use_scipy_openblas(64)
elseif(BROCKETT_BLAS STREQUAL "scipy-openblas32")
  _brockett_use_scipy_openblas(32)
endif()
if(NOT BROCKETT_BLAS_CHOSEN AND BROCKETT_BLAS MATCHES "^(AUTO|system)$")
  _brockett_use_system()
endif()
if(NOT BROCKETT_BLAS_CHOSEN AND BROCKETT_BLAS STREQUAL "AUTO" AND NOT SKBUILD)
  _brockett_use_scipy_openblas(64)
endif()
if(NOT BROCKETT_BLAS_CHOSEN)
  message(FATAL_ERROR
    "No BLAS/LAPACK for BROCKETT_BLAS=${BROCKETT_BLAS}. Either `pip install scipy-openblas64` for the Python that CMake finds "
    "(Python_EXECUTABLE=${Python_EXECUTABLE}), or install a system one (Debian: libopenblas-dev), or set BLA_VENDOR, "
    "BLAS_LIBRARIES and LAPACK_LIBRARIES.")
endif()
