// Two-dimensional .npy files (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html), just what a
// pipeline needs: float32 or float64, C order, little endian; read in batches of rows, written whole.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

namespace npy {

static_assert(std::endian::native == std::endian::little, ".npy data is copied as it is: little endian only");

/// An open .npy file of a matrix, read from its first row to its last.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(path, std::ios::binary) {
    if (!file_) fail("cannot be opened");
    char magic[8];
    if (!file_.read(magic, 8) || std::string(magic, 6) != "\x93NUMPY") fail("is not a .npy file");
    const int version = static_cast<unsigned char>(magic[6]);
    if (version < 1 || version > 3) fail("has format version " + std::to_string(version) + ", expected 1, 2 or 3");
    unsigned char length[4] = {0, 0, 0, 0};
    file_.read(reinterpret_cast<char*>(length), version == 1 ? 2 : 4);
    const std::size_t n = length[0] | length[1] << 8 | length[2] << 16 | std::size_t{length[3]} << 24;
    if (!file_ || n > 65536) fail("has a damaged header");
    std::string header(n, ' ');
    if (!file_.read(header.data(), static_cast<std::streamsize>(n))) fail("ends within its header");
    parse(header);
    data_start_ = file_.tellg();
    // The size is checked before the first row is used, not when the last one turns out to be missing.
    file_.seekg(0, std::ios::end);
    const auto have = static_cast<std::uint64_t>(file_.tellg() - data_start_);
    const auto want = static_cast<std::uint64_t>(rows_) * static_cast<std::uint64_t>(cols_) * item_size();
    if (have != want) fail("holds " + std::to_string(have) + " bytes of data, expected " + std::to_string(want));
    file_.seekg(data_start_);
  }

  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  bool is_float32() const { return float32_; }
  std::size_t item_size() const { return float32_ ? 4 : 8; }

  /// The next rows, at most `max_rows` of them, as they lie in the file; false at the end.
  bool read_rows(std::int64_t max_rows, std::vector<char>& bytes, std::int64_t& n_rows) {
    n_rows = std::min(max_rows, rows_ - row_);
    if (n_rows <= 0) return false;
    bytes.resize(static_cast<std::size_t>(n_rows * cols_) * item_size());
    if (!file_.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) fail("ends within its data");
    row_ += n_rows;
    return true;
  }

 private:
  [[noreturn]] void fail(const std::string& why) const { throw std::runtime_error(path_ + " " + why); }

  // The text after `key` in the dict literal that the header is.
  std::string after(const std::string& header, const std::string& key) const {
    const std::size_t at = header.find("'" + key + "':");
    if (at == std::string::npos) fail("has a header without '" + key + "'");
    const std::size_t start = header.find_first_not_of(' ', at + key.size() + 3);
    if (start == std::string::npos) fail("has a damaged header");
    return header.substr(start);
  }

  void parse(const std::string& header) {
    const std::string descr = after(header, "descr");
    if (descr.starts_with("'<f4'")) {
      float32_ = true;
    } else if (!descr.starts_with("'<f8'")) {
      fail("holds dtype " + descr.substr(0, descr.find(',')) + ", expected '<f4' (float32) or '<f8' (float64)");
    }
    if (!after(header, "fortran_order").starts_with("False")) fail("is in Fortran order, expected C order");
    const std::string shape = after(header, "shape");
    std::vector<std::int64_t> sizes;
    for (std::size_t i = 1; i < shape.size() && shape[0] == '(' && shape[i] != ')'; ++i) {
      if (shape[i] < '0' || shape[i] > '9') continue;
      std::int64_t size = 0;
      for (; i < shape.size() && shape[i] >= '0' && shape[i] <= '9'; ++i) {
        if (size > std::numeric_limits<std::int32_t>::max()) fail("has a damaged shape");
        size = 10 * size + (shape[i] - '0');
      }
      sizes.push_back(size);
      --i;
    }
    if (sizes.size() != 2) fail("has " + std::to_string(sizes.size()) + " axes, expected 2");
    rows_ = sizes[0];
    cols_ = sizes[1];
    if (rows_ < 1 || cols_ < 1) fail("is empty");
    if (rows_ > std::numeric_limits<std::int64_t>::max() / 8 / cols_) fail("has a damaged shape");
  }

  std::string path_;
  std::ifstream file_;
  std::streampos data_start_;
  std::int64_t rows_ = 0;
  std::int64_t cols_ = 0;
  std::int64_t row_ = 0;
  bool float32_ = false;
};

/// Write a rows x cols row-major matrix of float or double.
template <class T>
void write(const std::string& path, const T* data, std::int64_t rows, std::int64_t cols) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  std::string header = "{'descr': '<f" + std::to_string(sizeof(T)) + "', 'fortran_order': False, 'shape': (" +
                       std::to_string(rows) + ", " + std::to_string(cols) + "), }";
  header.resize((10 + header.size() + 1 + 63) / 64 * 64 - 11, ' ');  // data starts on a multiple of 64 bytes
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  const char length[2] = {static_cast<char>(header.size() & 0xff), static_cast<char>(header.size() >> 8)};
  file.write(length, 2);
  file.write(header.data(), static_cast<std::streamsize>(header.size()));
  file.write(reinterpret_cast<const char*>(data),
             static_cast<std::streamsize>(static_cast<std::size_t>(rows * cols) * sizeof(T)));
  file.close();
  if (!file) throw std::runtime_error(path + " cannot be written");
}

}  // namespace npy
