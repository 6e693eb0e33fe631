# The macros of Slicer and CTK that the extension calls: from the sources of those projects where the environment
# names them (SLICER_SOURCE, CTK_SOURCE), otherwise from the stand-ins beside this file.
if(DEFINED ENV{CTK_SOURCE})
  set(CTK_CMAKE_DIR $ENV{CTK_SOURCE}/CMake)
  # What Slicer's own configuration tells CTK of its Python; the library matters only for starting that Python.
  set(PYTHONINTERP_FOUND TRUE)
  set(PYTHONLIBS_FOUND TRUE)
  set(PYTHON_LIBRARIES ${PYTHON_EXECUTABLE})
  include(${CTK_CMAKE_DIR}/ctkFunctionExtractOptimizedLibrary.cmake)
  include(${CTK_CMAKE_DIR}/ctkMacroCompilePythonScript.cmake)
else()
  include(${CMAKE_CURRENT_LIST_DIR}/CompilePythonScript.cmake)
endif()

if(DEFINED ENV{SLICER_SOURCE})
  include($ENV{SLICER_SOURCE}/CMake/SlicerMacroBuildScriptedModule.cmake)
else()
  include(${CMAKE_CURRENT_LIST_DIR}/BuildScriptedModule.cmake)
endif()
