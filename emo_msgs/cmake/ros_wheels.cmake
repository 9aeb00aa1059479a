# Lets this package build on the ROS 2 wheels of PyPI. pyproject.toml injects it after project() through
# CMAKE_PROJECT_INCLUDE; colcon never reads it.

# The wheels live in the environment of the Python that runs the build, not under /opt/ros.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
    "import pathlib, rosidl_pycommon; print(pathlib.Path(rosidl_pycommon.__file__).parents[4].as_posix())"
  OUTPUT_VARIABLE ros_wheels_prefix OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
list(PREPEND CMAKE_PREFIX_PATH "${ros_wheels_prefix}")
set(ENV{AMENT_PREFIX_PATH} "${ros_wheels_prefix}")

# Export files in the wheels name an include folder of the machine that built them, which CMake refuses because it does
# not exist here. The Python bindings need nothing from it.
foreach(package action_msgs builtin_interfaces service_msgs std_msgs unique_identifier_msgs)
  find_package(${package} REQUIRED)
  set(target "${package}::${package}__rosidl_generator_py")
  if(TARGET ${target})
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "")
  endif()
endforeach()
