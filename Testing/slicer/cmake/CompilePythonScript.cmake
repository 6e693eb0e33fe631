# Stands in for CTK's macro, and does as it does: copies scripts and resources to the build tree, compiles the
# scripts to .pyc files beside them, and installs the whole destination folder.
function(ctkMacroCompilePythonScript)
  set(single_values TARGET_NAME SOURCE_DIR DESTINATION_DIR INSTALL_DIR)
  cmake_parse_arguments(my "NO_INSTALL_SUBDIR" "${single_values}" "SCRIPTS;RESOURCES" ${ARGN})
  foreach(name IN ITEMS TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR)
    if(NOT my_${name})
      message(FATAL_ERROR "${name} is mandatory")
    endif()
  endforeach()
  if(NOT my_SOURCE_DIR)
    set(my_SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR})
  endif()

  foreach(file IN LISTS my_SCRIPTS my_RESOURCES)
    add_custom_command(
      OUTPUT ${my_DESTINATION_DIR}/${file}
      COMMAND ${CMAKE_COMMAND} -E copy ${my_SOURCE_DIR}/${file} ${my_DESTINATION_DIR}/${file}
      DEPENDS ${my_SOURCE_DIR}/${file}
    )
  endforeach()
  list(TRANSFORM my_SCRIPTS PREPEND ${my_DESTINATION_DIR}/)
  list(TRANSFORM my_RESOURCES PREPEND ${my_DESTINATION_DIR}/)
  add_custom_target(Copy${my_TARGET_NAME}PythonFiles ALL DEPENDS ${my_SCRIPTS} ${my_RESOURCES})
  add_custom_target(Compile${my_TARGET_NAME}PythonFiles ALL ${PYTHON_EXECUTABLE} -m compileall -q -b ${my_SCRIPTS})
  add_dependencies(Compile${my_TARGET_NAME}PythonFiles Copy${my_TARGET_NAME}PythonFiles)

  if(my_NO_INSTALL_SUBDIR)
    string(APPEND my_DESTINATION_DIR /)
  endif()
  install(DIRECTORY ${my_DESTINATION_DIR} DESTINATION ${my_INSTALL_DIR} USE_SOURCE_PERMISSIONS)
endfunction()
