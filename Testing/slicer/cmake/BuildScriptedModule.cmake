# Stands in for Slicer's macro: checks its arguments, and puts the files of a module among the scripted modules.
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(module "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(module_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown arguments: ${module_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file IN LISTS module_SCRIPTS module_RESOURCES)
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "${module_NAME}: no such file: ${file}")
    endif()
  endforeach()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${module_NAME}
    SCRIPTS ${module_SCRIPTS}
    RESOURCES ${module_RESOURCES}
    DESTINATION_DIR ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
    INSTALL_DIR ${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}
    NO_INSTALL_SUBDIR
  )
endfunction()
