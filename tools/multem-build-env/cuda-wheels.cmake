# CMake toolchain file: compiles python-multem with NVIDIA's CUDA 13.0 wheels.
# No CUDA toolkit, GPU or driver is needed on the machine that builds.

# Where the wheels lie: nvidia/cu13 in the site-packages of the Python that runs the build. CMake reads
# this file again for its compiler tests, where PYTHON_EXECUTABLE is unknown: hence the variable.
if(NOT DEFINED ENV{CUDA_WHEELS})
  execute_process(
    COMMAND "${PYTHON_EXECUTABLE}" -c
      "import importlib.util as u; print(list(u.find_spec('nvidia.cu13').submodule_search_locations)[0])"
    OUTPUT_VARIABLE wheels OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  set(ENV{CUDA_WHEELS} "${wheels}")
endif()
set(wheels "$ENV{CUDA_WHEELS}")

if(wheels)
  set(CUDAToolkit_ROOT "${wheels}")
  set(CMAKE_CUDA_COMPILER "${wheels}/bin/nvcc")

  # nvcc's profile looks in lib64; the wheels have lib.
  set(ENV{NVCC_APPEND_FLAGS} "-L${wheels}/lib")
  # BLAS_H is the include guard of a header that MULTEM includes and never uses; with it defined the
  # 600 MB cuBLAS wheel is not needed.
  set(CMAKE_CUDA_FLAGS_INIT "-L${wheels}/lib -DBLAS_H -include $ENV{MULTEM_ICE_SEED_HEADER}")

  # The wheels have versioned libraries only, and no libcuda stub; MULTEM calls no driver function.
  set(CUDA_CUDART "${wheels}/lib/libcudart.so.13" CACHE FILEPATH "" FORCE)
  set(CUDA_cudart_LIBRARY "${wheels}/lib/libcudart.so.13" CACHE FILEPATH "" FORCE)
  set(CUDA_cufft_LIBRARY "${wheels}/lib/libcufft.so.12" CACHE FILEPATH "" FORCE)
  set(CUDA_cuda_driver_LIBRARY "${wheels}/lib/libcudart.so.13" CACHE FILEPATH "" FORCE)

  # At run time: the CUDA runtime wheels beside the module in any site-packages.
  set(CMAKE_BUILD_RPATH "$ORIGIN/nvidia/cu13/lib")
endif()
