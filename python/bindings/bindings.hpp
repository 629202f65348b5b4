// What each topic adds to the module.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include "brockett/penalty.hpp"

namespace brockett::python {

void bind_errors(pybind11::module_& m);
void bind_device_array(pybind11::module_& m);
void bind_machine(pybind11::module_& m);
void bind_autocorrelation(pybind11::module_& m);
void bind_patch_autocorrelation(pybind11::module_& m);
void bind_svd(pybind11::module_& m);
void bind_eigen(pybind11::module_& m);
void bind_penalty(pybind11::module_& m);
void bind_convolution(pybind11::module_& m);
void bind_spectral_graph(pybind11::module_& m);
void bind_descramble(pybind11::module_& m);
void bind_random_matrix(pybind11::module_& m);

/// A penalty from its description, as the facade's penalty classes give it.
Penalty penalty_from(const pybind11::typing::Dict<pybind11::str, pybind11::object>& spec);

}  // namespace brockett::python
