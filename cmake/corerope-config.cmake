# Neural networks compiled by corerope as libraries of a CMake project.
#
#   find_package(corerope REQUIRED)
#
#   corerope_add_model(<target> <model.tflite>
#       [NAME <name>]                      prefix of symbols, types and macros, and the files' name
#       [TARGET <triple>] [CPU <cpu>] [ABI <abi>]
#       [ARENA static|caller] [IO pointers|arena]
#       [PLACE <rule>...] [PLACE_FILE <file.toml>] [REGION <name=origin:length[:access]>...]
#       [LINKER gnu|iar|keil|ti...]
#       [OPTIONS <option>...]              any other option of `corerope build`
#       [OUTPUT_DIRECTORY <folder>])
#
# makes <target> an imported static library with its include directory. The model is compiled when the project is built,
# and again when the model, the place file or corerope itself has changed; what comes out equal keeps its time stamp, so
# nothing is linked again for it. Properties of the target: COREROPE_HEADER, COREROPE_FRAGMENTS, COREROPE_REPORT.
#
#   corerope_link_scripts(<executable> <script.ld> <target>...)
#
# links the executable by a script of its own and the fragments of models, in the order that the linkers need: fragments
# first.
#
#   corerope_check_link(<executable> <target>...)
#
# runs `corerope check-link` behind every link: the build fails where something landed in the wrong place.
#
# Without TARGET the variable COREROPE_TARGET counts, then, if nothing is cross-compiled, this machine.
# COREROPE_EXECUTABLE is the program.

cmake_minimum_required(VERSION 3.20)

if(NOT COREROPE_EXECUTABLE)
    find_program(COREROPE_EXECUTABLE corerope DOC "The corerope program")
endif()

include(FindPackageHandleStandardArgs)
set(corerope_CONFIG "${CMAKE_CURRENT_LIST_FILE}")
find_package_handle_standard_args(corerope CONFIG_MODE REQUIRED_VARS COREROPE_EXECUTABLE)

# Stops with a message that names the function and the model's target.
macro(_corerope_fail target)
    message(FATAL_ERROR "corerope_add_model(${target}): ${ARGN}")
endmacro()

# Lets a list hold `text` whole (semicolons), and generators leave it alone (generator expressions).
function(_corerope_word result text)
    string(REPLACE "\$<" "\$<1:\$><" text "${text}")
    string(REPLACE ";" "\\;" text "${text}")
    set(${result} "${text}" PARENT_SCOPE)
endfunction()

function(corerope_add_model target model)
    set(single NAME TARGET CPU ABI ARENA IO PLACE_FILE OUTPUT_DIRECTORY)
    set(multiple PLACE REGION LINKER OPTIONS)
    # From ARGV, so that a rule or a path with a semicolon stays whole.
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "${single}" "${multiple}")
    if(arg_UNPARSED_ARGUMENTS)
        _corerope_fail("${target}" "unknown argument ${arg_UNPARSED_ARGUMENTS}")
    endif()
    if(arg_KEYWORDS_MISSING_VALUES)
        _corerope_fail("${target}" "no value for ${arg_KEYWORDS_MISSING_VALUES}")
    endif()

    get_filename_component(model "${model}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
    if(NOT DEFINED arg_NAME)
        # As corerope itself makes a prefix of a file's name; that it is one is checked there.
        get_filename_component(arg_NAME "${model}" NAME_WLE)
        string(TOLOWER "${arg_NAME}" arg_NAME)
        string(REGEX REPLACE "[^a-z0-9]+" "_" arg_NAME "${arg_NAME}")
        string(REGEX REPLACE "^_+|_+$" "" arg_NAME "${arg_NAME}")
        string(SUBSTRING "${arg_NAME}" 0 48 arg_NAME)
        string(REGEX REPLACE "_+$" "" arg_NAME "${arg_NAME}")
        if(arg_NAME STREQUAL "" OR arg_NAME MATCHES "^[0-9]")
            string(PREPEND arg_NAME "model_")
            string(REGEX REPLACE "_$" "" arg_NAME "${arg_NAME}")
        endif()
    elseif(NOT arg_NAME MATCHES "^[A-Za-z][A-Za-z0-9_]*$")
        _corerope_fail("${target}" "NAME ${arg_NAME} is no identifier")
    endif()
    if(NOT DEFINED arg_TARGET)
        if(COREROPE_TARGET)
            set(arg_TARGET "${COREROPE_TARGET}")
        elseif(CMAKE_CROSSCOMPILING)
            _corerope_fail("${target}" "give TARGET, or set COREROPE_TARGET in the toolchain file:"
                " `corerope targets` lists what there is")
        endif()
    endif()
    if(NOT DEFINED arg_OUTPUT_DIRECTORY)
        set(arg_OUTPUT_DIRECTORY "corerope/${target}")
    endif()
    get_filename_component(out "${arg_OUTPUT_DIRECTORY}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_BINARY_DIR}")
    # An include directory has to be there when the project is configured.
    file(MAKE_DIRECTORY "${out}")

    set(base "${out}/${arg_NAME}")
    set(library "${base}.a")
    if(arg_TARGET MATCHES "-windows-msvc$")
        set(library "${base}.lib")
    endif()
    _corerope_word(model "${model}")
    set(arguments "${model}" -o "${library}" --name "${arg_NAME}" --report "${base}.json")
    set(depends "${model}" "${COREROPE_EXECUTABLE}")
    foreach(option TARGET CPU ABI ARENA IO)
        if(DEFINED arg_${option})
            string(TOLOWER "${option}" name)
            list(APPEND arguments "--${name}" "${arg_${option}}")
        endif()
    endforeach()
    foreach(rule IN LISTS arg_PLACE)
        _corerope_word(rule "${rule}")
        list(APPEND arguments --place "${rule}")
    endforeach()
    set(file)
    if(DEFINED arg_PLACE_FILE)
        get_filename_component(file "${arg_PLACE_FILE}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
        _corerope_word(file "${file}")
        list(APPEND arguments --place-file "${file}")
        list(APPEND depends "${file}")
    endif()
    foreach(region IN LISTS arg_REGION)
        list(APPEND arguments --region "${region}")
    endforeach()
    if(NOT DEFINED arg_LINKER)
        set(arg_LINKER gnu)
    endif()
    set(fragments)
    set(extension_gnu ld)
    set(extension_iar icf)
    set(extension_keil sct)
    set(extension_ti cmd)
    foreach(linker IN LISTS arg_LINKER)
        if(NOT DEFINED extension_${linker})
            _corerope_fail("${target}" "LINKER ${linker} is not one of gnu, iar, keil, ti")
        endif()
        list(APPEND arguments --linker "${linker}")
        list(APPEND fragments "${base}.${extension_${linker}}")
    endforeach()
    foreach(option IN LISTS arg_OPTIONS)
        _corerope_word(option "${option}")
        list(APPEND arguments "${option}")
    endforeach()

    # What else a build reads is in the dependency file. CMake reads that itself, and takes quotes and other marks for the
    # ends of names: without it such a path is still a dependency, as the command's own.
    set(depfile DEPFILE "${base}.d")
    if("${model}${file}" MATCHES "['\"`&|<>^!*?]")
        set(depfile)
    endif()
    # The stamp says that the build was tried; the outputs keep their time stamps if they come out equal.
    add_custom_command(
        OUTPUT "${base}.stamp"
        BYPRODUCTS "${library}" "${base}.h" "${base}.json" ${fragments}
        COMMAND "${COREROPE_EXECUTABLE}" build ${arguments} --quiet -MD -MF "${base}.d" -MQ "${base}.stamp"
        COMMAND "${CMAKE_COMMAND}" -E touch "${base}.stamp"
        DEPENDS ${depends}
        ${depfile}
        COMMENT "Compiling the network ${arg_NAME}"
        VERBATIM)
    add_custom_target("${target}_corerope" DEPENDS "${base}.stamp")

    add_library("${target}" STATIC IMPORTED GLOBAL)
    set_target_properties("${target}" PROPERTIES
        IMPORTED_LOCATION "${library}"
        INTERFACE_INCLUDE_DIRECTORIES "${out}"
        COREROPE_HEADER "${base}.h"
        COREROPE_FRAGMENTS "${fragments}"
        COREROPE_REPORT "${base}.json")
    add_dependencies("${target}" "${target}_corerope")
endfunction()

function(corerope_link_scripts executable script)
    get_filename_component(script "${script}" ABSOLUTE BASE_DIR "${CMAKE_CURRENT_SOURCE_DIR}")
    set(scripts)
    foreach(model IN LISTS ARGN)
        get_target_property(fragments "${model}" COREROPE_FRAGMENTS)
        if(NOT fragments)
            message(FATAL_ERROR "corerope_link_scripts(${executable}): ${model} is not a model of corerope_add_model")
        endif()
        list(FILTER fragments INCLUDE REGEX "[.]ld$")
        list(APPEND scripts ${fragments})
        add_dependencies("${executable}" "${model}_corerope")
    endforeach()
    list(APPEND scripts "${script}")
    foreach(file IN LISTS scripts)
        target_link_options("${executable}" PRIVATE "SHELL:-T \"${file}\"")
    endforeach()
    set_property(TARGET "${executable}" APPEND PROPERTY LINK_DEPENDS ${scripts})
endfunction()

function(corerope_check_link executable)
    set(reports)
    foreach(model IN LISTS ARGN)
        get_target_property(report "${model}" COREROPE_REPORT)
        list(APPEND reports "${report}")
    endforeach()
    add_custom_command(TARGET "${executable}" POST_BUILD
        COMMAND "${COREROPE_EXECUTABLE}" check-link --quiet "$<TARGET_FILE:${executable}>" ${reports}
        VERBATIM)
endfunction()
