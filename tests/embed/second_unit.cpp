// See main.cpp, regression 4.
#include <brockett/brockett.hpp>

brockett::index_t features_of(const brockett::Autocorrelation& R) { return R.n_features(); }
