#include "guarded.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "guarded_linalg.hpp"

// Tests ask for more memory than there is, on purpose.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() {
  return "allocator_may_return_null=1";
}

namespace brockett::test {
namespace {

// All guarded memory of the process lies in one reserved range of addresses: whether a pointer is ours can be told in a
// signal handler, and freed memory is never handed out again.
struct Arena {
  static constexpr std::size_t size = std::size_t{1} << 37;
  char* begin;
  std::atomic<std::size_t> used{0};
  std::size_t page;

  static Arena& get() {
    static Arena arena;
    return arena;
  }
  bool contains(const void* p) const { return p >= begin && p < begin + size; }

  // `bytes` rounded up to pages, and a page behind that stays closed.
  char* take(std::size_t bytes) {
    const std::size_t start = used.fetch_add(bytes + page);
    if (bytes > size || start + bytes + page > size) throw OutOfMemory("the guarded arena is used up");
    return begin + start;
  }

 private:
  Arena() : page(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::runtime_error("cannot reserve addresses for guarded memory");
    begin = static_cast<char*>(p);
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      if (get().contains(info->si_addr)) {
        constexpr char text[] = "guarded memory touched outside a primitive, or outside its bounds\n";
        [[maybe_unused]] const auto written = write(STDERR_FILENO, text, sizeof text - 1);
      }
      sigaction(SIGSEGV, &get().previous, nullptr);  // returning meets the fault again, with whom it was for before
    };
    sigaction(SIGSEGV, &action, &previous);
  }
  struct sigaction previous = {};
};

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "guarded backend: %s\n", what);
  std::abort();
}

void require(bool condition, const std::string& message) {
  if (!condition) throw std::logic_error("guarded backend: " + message);
}

}  // namespace

struct Vault::Block {
  char* pages;  // the block ends where they end
  std::size_t page_bytes;
  std::size_t bytes;
  int readers = 0;
  int writers = 0;

  void protect() const {
    const int rights = writers > 0 ? PROT_READ | PROT_WRITE : readers > 0 ? PROT_READ : PROT_NONE;
    if (mprotect(pages, page_bytes, rights) != 0) die("mprotect failed");
  }
  // Everything starts as NaN, the filling up to the block's alignment included; that part must still be so at the end.
  char* start() const { return pages + page_bytes - rounded(); }
  std::size_t rounded() const { return (bytes + 63) / 64 * 64; }
  bool filling_untouched() const {
    const auto whole = [](const char* from, const char* to) {
      for (; from < to; ++from) {
        if (static_cast<unsigned char>(*from) != 0xFF) return false;
      }
      return true;
    };
    return whole(pages, start()) && whole(start() + bytes, pages + page_bytes);
  }
};

struct Vault::State {
  mutable std::mutex mutex;
  std::map<const char*, Block> blocks;  // by start
  std::size_t allocations = 0;
  std::size_t fail_after = never;

  static constexpr std::size_t never = ~std::size_t{0};

  Block& containing(const char* p, std::size_t bytes, const char* primitive) {
    const auto above = blocks.upper_bound(p);
    require(above != blocks.begin(), std::string(primitive) + ": a device argument is not device memory");
    Block& block = std::prev(above)->second;
    require(p < block.start() + block.bytes, std::string(primitive) + ": a device argument is not device memory");
    require(p + bytes <= block.start() + block.bytes,
            std::string(primitive) + ": a device argument reaches " +
                std::to_string(p + bytes - block.start() - static_cast<std::ptrdiff_t>(block.bytes)) +
                " bytes beyond its allocation of " + std::to_string(block.bytes));
    return block;
  }
};

Vault::Vault() : state_(std::make_unique<State>()) { Arena::get(); }

Vault::~Vault() {
  if (!state_->blocks.empty()) die("device memory is still allocated when the backend goes");
}

void* Vault::allocate(std::size_t bytes) {
  if (bytes == 0) return nullptr;
  const std::lock_guard lock(state_->mutex);
  if (state_->fail_after != State::never && state_->fail_after-- == 0) {
    state_->fail_after = State::never;
    throw OutOfMemory("cannot allocate " + std::to_string(bytes) + " bytes: the test says so");
  }
  Arena& arena = Arena::get();
  if (bytes > Arena::size) throw OutOfMemory("cannot allocate " + std::to_string(bytes) + " bytes");
  Block block{nullptr, 0, bytes};
  block.page_bytes = (block.rounded() + arena.page - 1) / arena.page * arena.page;
  block.pages = arena.take(block.page_bytes);
  block.writers = 1;
  block.protect();
  std::memset(block.pages, 0xFF, block.page_bytes);
  block.writers = 0;
  block.protect();
  char* start = block.start();
  state_->blocks.emplace(start, block);
  ++state_->allocations;
  return start;
}

void Vault::deallocate(void* p) noexcept {
  if (p == nullptr) return;
  const std::lock_guard lock(state_->mutex);
  const auto at = state_->blocks.find(static_cast<const char*>(p));
  if (at == state_->blocks.end()) die("deallocate of what is not allocated");
  Block& block = at->second;
  if (block.readers + block.writers > 0) die("deallocate while a primitive works on it");
  block.readers = 1;
  block.protect();
  if (!block.filling_untouched()) die("a primitive wrote beyond an allocation");
  block.readers = 0;
  madvise(block.pages, block.page_bytes, MADV_DONTNEED);
  block.protect();
  state_->blocks.erase(at);
}

std::size_t Vault::live_allocations() const {
  const std::lock_guard lock(state_->mutex);
  return state_->blocks.size();
}
std::size_t Vault::allocations() const {
  const std::lock_guard lock(state_->mutex);
  return state_->allocations;
}
void Vault::fail_allocation_after(std::size_t count) {
  const std::lock_guard lock(state_->mutex);
  state_->fail_after = count;
}
bool Vault::cancel_failure() {
  const std::lock_guard lock(state_->mutex);
  return std::exchange(state_->fail_after, State::never) != State::never;
}

Access::Access(Vault& vault, const char* primitive, std::initializer_list<Region> regions)
    : vault_(vault), primitive_(primitive) {
  const std::lock_guard lock(vault_.state_->mutex);
  for (const Region& out : regions) {
    if (out.empty()) continue;
    vault_.state_->containing(out.data, out.bytes(), primitive_);
    if (!out.written) continue;
    for (const Region& other : regions) {
      require(&other == &out || !out.overlaps(other),
              std::string(primitive_) + ": an output overlaps another argument");
    }
  }
  for (const Region& region : regions) {
    if (region.empty()) continue;
    Vault::Block& block = vault_.state_->containing(region.data, region.bytes(), primitive_);
    ++(region.written ? block.writers : block.readers);
    block.protect();
    open_.push_back({&block, region.written});
  }
}

Access::~Access() {
  const std::lock_guard lock(vault_.state_->mutex);
  for (const auto& [block, written] : open_) {
    --(written ? block->writers : block->readers);
    block->protect();
  }
}

void Access::host(const void* p) const {
  require(p != nullptr && !is_guarded(p), std::string(primitive_) + ": a host argument is device memory, or null");
}

void Access::check(bool condition, const char* what) const {
  require(condition, std::string(primitive_) + ": " + what);
}

bool Region::overlaps(const Region& o) const {
  if (empty() || o.empty() || data + bytes() <= o.data || o.data + o.bytes() <= data) return false;
  if (ld != o.ld || batch > 1 || o.batch > 1) return true;
  // Two blocks of one matrix: where the second starts relative to the first, in rows and columns.
  const auto pitch = static_cast<std::ptrdiff_t>(ld);
  std::ptrdiff_t distance = o.data - data, column = distance / pitch, row = distance % pitch;
  if (row < 0) row += pitch, --column;
  // Columns of a block may reach around the end of a column of the whole into the next: try both readings.
  const auto meet = [&](std::ptrdiff_t r, std::ptrdiff_t c) {
    return r < static_cast<std::ptrdiff_t>(rows) && r + static_cast<std::ptrdiff_t>(o.rows) > 0 &&
           c < static_cast<std::ptrdiff_t>(cols) && c + static_cast<std::ptrdiff_t>(o.cols) > 0;
  };
  return meet(row, column) || meet(row - pitch, column + 1);
}

bool is_guarded(const void* p) { return Arena::get().contains(p); }

namespace {

class Guarded final : public GuardedBackend {
 public:
  Guarded() : inner_(linalg::lapack_backend()), single_(vault_, inner_->single()), full_(vault_, inner_->full()) {}
  std::string name() const override { return "guarded"; }
  linalg::LinAlg<float>& single() override { return single_; }
  linalg::LinAlg<double>& full() override { return full_; }
  void for_each(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll) override {
    inner_->for_each(count, f, poll);
  }
  // More than the host's, so that algorithms meet batches that do not divide evenly.
  index_t batch_size(std::size_t) const override { return 3; }
  // As a device would: packed pieces in the vault, each gone when `f` returns.
  void stream_from_host(const void* host, std::size_t row_bytes, std::size_t pitch, index_t rows, index_t step,
                        const HostPieces& f) override {
    require(!is_guarded(host), "stream_from_host: a host argument is device memory");
    for (index_t first = 0; first < rows; first += step) {
      const auto count = static_cast<std::size_t>(std::min(step, rows - first));
      const std::unique_ptr<void, std::function<void(void*)>> piece(vault_.allocate(count * row_bytes),
                                                                    [this](void* p) { vault_.deallocate(p); });
      char* to = static_cast<char*>(piece.get());
      const char* from = static_cast<const char*>(host) + static_cast<std::size_t>(first) * pitch;
      {
        const Access access(vault_, "stream_from_host", {{to, row_bytes, count, row_bytes, true}});
        for (std::size_t i = 0; i < count; ++i) std::memcpy(to + i * row_bytes, from + i * pitch, row_bytes);
      }
      f(first, static_cast<index_t>(count), to, row_bytes);
    }
  }
  std::shared_ptr<void> thread_scope(index_t n) override { return inner_->thread_scope(n); }
  std::shared_ptr<void> narrow_scope() override { return inner_->narrow_scope(); }
  std::size_t live_allocations() const override { return vault_.live_allocations(); }
  std::size_t allocations() const override { return vault_.allocations(); }
  void fail_allocation_after(std::size_t count) override { vault_.fail_allocation_after(count); }
  bool cancel_failure() override { return vault_.cancel_failure(); }

 private:
  std::shared_ptr<linalg::Backend> inner_;
  Vault vault_;
  GuardedLinAlg<float> single_;
  GuardedLinAlg<double> full_;
};

}  // namespace

std::shared_ptr<GuardedBackend> make_guarded_backend() { return std::make_shared<Guarded>(); }

std::size_t sweep_failing_allocations(GuardedBackend& backend, const std::function<void()>& f) {
  const std::size_t before = backend.live_allocations();
  for (std::size_t k = 0;; ++k) {
    backend.fail_allocation_after(k);
    bool thrown = false;
    try {
      f();
    } catch (const OutOfMemory&) {
      thrown = true;
    }
    const bool got_through = backend.cancel_failure();
    const std::string which = "with failing allocation number " + std::to_string(k);
    require(backend.live_allocations() == before, which + ": memory is left behind");
    require(thrown != got_through, which + (thrown ? ": another one failed" : ": OutOfMemory was swallowed"));
    if (got_through) return k;
  }
}

}  // namespace brockett::test
