# ONNXRuntime::ONNXRuntime: from -DONNXRUNTIME_ROOT, an unpacked release or a folder of get_libraries.sh; else from
# ONNX Runtime's own CMake package; else from pkg-config.

if(TARGET ONNXRuntime::ONNXRuntime)
  set(ONNXRuntime_FOUND TRUE)
  return()
endif()

set(ONNXRUNTIME_ROOT "" CACHE PATH "A folder with include/ and lib/ of ONNX Runtime")
if(NOT "${ONNXRUNTIME_ROOT}" STREQUAL "${ONNXRuntime_sought_in}")  # what another folder had counts no more
  unset(ONNXRuntime_INCLUDE_DIR CACHE)
  unset(ONNXRuntime_LIBRARY CACHE)
endif()
set(ONNXRuntime_sought_in "${ONNXRUNTIME_ROOT}" CACHE INTERNAL "")
set(suffixes include include/onnxruntime include/onnxruntime/core/session headers)

if(ONNXRUNTIME_ROOT)
  find_path(ONNXRuntime_INCLUDE_DIR onnxruntime_cxx_api.h PATHS "${ONNXRUNTIME_ROOT}" PATH_SUFFIXES ${suffixes}
    NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
  find_library(ONNXRuntime_LIBRARY onnxruntime PATHS "${ONNXRUNTIME_ROOT}" PATH_SUFFIXES lib lib64 jni/${ANDROID_ABI}
    NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH)
else()
  find_package(onnxruntime CONFIG QUIET)
  if(TARGET onnxruntime::onnxruntime)
    add_library(ONNXRuntime::ONNXRuntime INTERFACE IMPORTED)
    target_link_libraries(ONNXRuntime::ONNXRuntime INTERFACE onnxruntime::onnxruntime)
    set(ONNXRuntime_FOUND TRUE)
    return()
  endif()
  find_package(PkgConfig QUIET)
  if(PkgConfig_FOUND)
    pkg_check_modules(PC_ONNXRuntime QUIET libonnxruntime)
  endif()
  find_path(ONNXRuntime_INCLUDE_DIR onnxruntime_cxx_api.h HINTS ${PC_ONNXRuntime_INCLUDE_DIRS}
    PATH_SUFFIXES onnxruntime onnxruntime/core/session)
  find_library(ONNXRuntime_LIBRARY onnxruntime HINTS ${PC_ONNXRuntime_LIBRARY_DIRS})
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(ONNXRuntime
  REQUIRED_VARS ONNXRuntime_LIBRARY ONNXRuntime_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "pass -DONNXRUNTIME_ROOT=FOLDER, which on Debian tools/get_libraries.sh makes")
if(ONNXRuntime_FOUND)
  add_library(ONNXRuntime::ONNXRuntime UNKNOWN IMPORTED)
  set_target_properties(ONNXRuntime::ONNXRuntime PROPERTIES
    IMPORTED_LOCATION "${ONNXRuntime_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${ONNXRuntime_INCLUDE_DIR}")
endif()
mark_as_advanced(ONNXRuntime_INCLUDE_DIR ONNXRuntime_LIBRARY)
