# The headers, the library with its CMake package and pkg-config file, and the programs.
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/bitfit")
set(targets bitfit_bias_row)
if(BITFIT_BUILD_SESSION)
  list(APPEND targets bitfit)
endif()

install(DIRECTORY include/bitfit DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
install(TARGETS ${targets} EXPORT bitfitTargets)
install(EXPORT bitfitTargets NAMESPACE bitfit:: DESTINATION "${package_dir}")
configure_package_config_file(cmake/bitfitConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/bitfitConfig.cmake"
  INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/bitfitConfigVersion.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/bitfitConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/bitfitConfigVersion.cmake"
  cmake/FindONNXRuntime.cmake cmake/FindSodium.cmake DESTINATION "${package_dir}")

if(BITFIT_BUILD_SESSION)
  get_target_property(onnxruntime_library ONNXRuntime::ONNXRuntime IMPORTED_LOCATION)
  if(onnxruntime_library)
    get_filename_component(onnxruntime_libdir "${onnxruntime_library}" DIRECTORY)
    set(needed_libs "-L${onnxruntime_libdir} -lonnxruntime")
  else()
    set(needed_libs "-lonnxruntime")
  endif()
  if(BITFIT_SIGNATURES)
    string(APPEND needed_libs " -lsodium")
  endif()
  # An installed folder can be moved.
  file(RELATIVE_PATH prefix_from_pc "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig" "${CMAKE_INSTALL_PREFIX}")
  configure_file(cmake/bitfit.pc.in bitfit.pc @ONLY)
  install(FILES "${CMAKE_CURRENT_BINARY_DIR}/bitfit.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
  if(BITFIT_BUILD_PROGRAMS)
    file(RELATIVE_PATH lib_from_bin "${CMAKE_INSTALL_FULL_BINDIR}" "${CMAKE_INSTALL_FULL_LIBDIR}")
    set_target_properties(bitfit_run bitfit_learn bitfit_bench PROPERTIES
      INSTALL_RPATH "$ORIGIN/${lib_from_bin}" INSTALL_RPATH_USE_LINK_PATH ON)
    install(TARGETS bitfit_run bitfit_learn bitfit_bench)
  endif()
endif()
