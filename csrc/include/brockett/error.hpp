// The one exception family of brockett.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "brockett/export.hpp"

namespace brockett {

/// Base of everything brockett throws on purpose. `what()` carries the failing values.
class BROCKETT_EXPORT Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message) : std::runtime_error(message) {}
  ~Error() override;
};

/// An argument is not what the function asks for. `argument()` is its name.
class BROCKETT_EXPORT InvalidArgument : public Error {
 public:
  InvalidArgument(std::string argument, const std::string& message)
      : Error(argument + ": " + message), argument_(std::move(argument)) {}
  ~InvalidArgument() override;
  const std::string& argument() const noexcept { return argument_; }

 private:
  std::string argument_;
};

/// A NaN or an infinity in an argument. (row, column) is the first one met in memory order.
class BROCKETT_EXPORT NonFinite : public InvalidArgument {
 public:
  NonFinite(std::string argument, std::int64_t row, std::int64_t column)
      : InvalidArgument(std::move(argument),
                        "NaN or Inf at index (" + std::to_string(row) + ", " + std::to_string(column) + ")"),
        row_(row),
        column_(column) {}
  ~NonFinite() override;
  std::int64_t row() const noexcept { return row_; }
  std::int64_t column() const noexcept { return column_; }

 private:
  std::int64_t row_;
  std::int64_t column_;
};

/// A LAPACK driver, and the more robust one tried after it, did not converge.
class BROCKETT_EXPORT NotConverged : public Error {
 public:
  using Error::Error;
  ~NotConverged() override;
};

/// Memory for a workspace or a result could not be had; the message gives the sizes.
class BROCKETT_EXPORT OutOfMemory : public Error {
 public:
  using Error::Error;
  ~OutOfMemory() override;
};

/// A request that this build or this backend cannot serve (an LP64 BLAS and a huge matrix, say).
class BROCKETT_EXPORT Unsupported : public Error {
 public:
  using Error::Error;
  ~Unsupported() override;
};

/// The engine asked for cannot be had on this machine; the message says why.
class BROCKETT_EXPORT EngineUnavailable : public Error {
 public:
  using Error::Error;
  ~EngineUnavailable() override;
};

/// The interrupt check of the Context asked to stop. Nothing half-done is kept.
class BROCKETT_EXPORT Interrupted : public Error {
 public:
  Interrupted() : Error("interrupted") {}
  ~Interrupted() override;
};

}  // namespace brockett
