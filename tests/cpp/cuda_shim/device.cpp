#include "device.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>

#include "control.h"
#include "shim_launch.hpp"

namespace cuda_shim {
namespace {

// As cudaMalloc does.
constexpr std::size_t kAlignment = 256;

struct Allocation {
  char* pages;
  std::size_t page_bytes;
  std::size_t bytes;
  int device;
  std::uint64_t pool = 0;                         // 0: from cudaMalloc
  Ticket made{};                                  // by which it may be used
  std::map<std::uint64_t, std::uint64_t> uses{};  // last use by stream

  // The block ends where its pages end, but for what alignment takes; that filling is NaN and must stay so.
  char* start() const { return pages + page_bytes - (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  bool filling_untouched() const {
    const auto whole = [](const char* from, const char* to) {
      return std::all_of(from, to, [](char c) { return static_cast<unsigned char>(c) == 0xFF; });
    };
    return whole(pages, start()) && whole(start() + bytes, pages + page_bytes);
  }
};

struct Pinned {
  std::size_t bytes;
  std::map<std::uint64_t, std::uint64_t> uses{};
};

struct Memory {
  static constexpr std::size_t size = std::size_t{1} << 38;
  char* begin;
  std::size_t used = 0;
  std::size_t page;
  std::map<const char*, Allocation> live;   // by start
  std::map<const char*, Allocation> dying;  // freed in the order of a stream that is not there yet
  std::map<const char*, Pinned> pinned;
  std::map<std::uint64_t, Pool> pools;
  std::uint64_t next_pool = 0x100;
  int open = 0;
  struct sigaction previous = {};

  static Memory& get() {
    static Memory& memory = *new Memory;
    return memory;
  }
  bool contains(const void* p) const { return p >= begin && p < begin + size; }

  void protect(const Allocation& a, int rights) const {
    if (mprotect(a.pages, a.page_bytes, rights) != 0) die("mprotect failed");
  }
  void protect_all(int rights) const {
    for (const auto& [start, a] : live) protect(a, rights);
    for (const auto& [start, a] : dying) protect(a, rights);
  }
  int resting() const { return mode() == Mode::guard && open == 0 ? PROT_NONE : PROT_READ | PROT_WRITE; }

  char* allocate(std::size_t bytes, int device, std::uint64_t pool) {
    Allocation a{nullptr, 0, bytes, device, pool};
    a.page_bytes = (bytes + page - 1) / page * page;
    if (used + a.page_bytes + page > size) die("the addresses for device memory are used up");
    a.pages = begin + used;
    used += a.page_bytes + page;  // the page behind it stays closed
    protect(a, PROT_READ | PROT_WRITE);
    poison(a.pages, a.page_bytes);
    protect(a, resting());
    char* start = a.start();
    live.emplace(start, a);
    return start;
  }
  void close_for_good(const Allocation& a) {
    protect(a, PROT_READ);
    if (!a.filling_untouched()) die("device memory was written beyond the end of an allocation");
    madvise(a.pages, a.page_bytes, MADV_DONTNEED);
    protect(a, PROT_NONE);
  }

 private:
  Memory() : page(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))) {
    void* p = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) die("cannot reserve addresses for device memory");
    begin = static_cast<char*>(p);
    struct sigaction action = {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      if (get().contains(info->si_addr)) {
        constexpr char text[] = "cuda shim: device memory touched by the host, or by a kernel outside its bounds\n";
        [[maybe_unused]] const auto written = write(STDERR_FILENO, text, sizeof text - 1);
      }
      sigaction(SIGSEGV, &get().previous, nullptr);  // returning meets the fault again, with whom it was for before
    };
    sigaction(SIGSEGV, &action, &previous);
  }
};

template <class Map>
auto containing(Map& map, const void* p) {
  auto at = map.upper_bound(static_cast<const char*>(p));
  if (at == map.begin()) return map.end();
  --at;
  return p < at->first + at->second.bytes ? at : map.end();
}

std::string text(std::size_t n) { return std::to_string(n); }

}  // namespace

void poison(void* p, std::size_t bytes) {
  if (bytes > 0) std::memset(p, 0xFF, bytes);
}

Open::Open() {
  Memory& memory = Memory::get();
  if (memory.open++ == 0 && mode() == Mode::guard) memory.protect_all(PROT_READ | PROT_WRITE);
}
Open::~Open() {
  Memory& memory = Memory::get();
  if (--memory.open == 0 && mode() == Mode::guard) memory.protect_all(PROT_NONE);
}

std::size_t used_memory(int device) {
  std::size_t bytes = 0;
  for (const auto& [start, a] : Memory::get().live) bytes += a.device == device && a.pool == 0 ? a.bytes : 0;
  for (const auto& [id, pool] : Memory::get().pools) bytes += pool.device == device ? pool.reserved : 0;
  return bytes;
}

cudaMemPool_t create_pool(int device) {
  Memory& memory = Memory::get();
  memory.next_pool += 0x10;
  memory.pools.emplace(memory.next_pool, Pool{device});
  return reinterpret_cast<cudaMemPool_t>(memory.next_pool);
}

Pool& pool_of(cudaMemPool_t handle, const char* function) {
  const auto at = Memory::get().pools.find(reinterpret_cast<std::uint64_t>(handle));
  if (at == Memory::get().pools.end() || at->second.destroyed) {
    die(std::string(function) + ": the memory pool is not one, or was destroyed");
  }
  return at->second;
}

void destroy_pool(Pool& pool) {
  pool.destroyed = true;
  pool.threshold = 0;
  trim_pools();
}

void trim_pools() {
  for (auto& [id, pool] : Memory::get().pools) {
    pool.reserved = std::max(pool.used, std::min(pool.reserved, pool.threshold));
  }
  std::erase_if(Memory::get().pools, [](const auto& p) { return p.second.destroyed && p.second.used == 0; });
}

void* allocate_device(std::size_t bytes, int device) {
  if (!may_allocate() || bytes > total_memory() || used_memory(device) + bytes > total_memory()) return nullptr;
  return Memory::get().allocate(bytes, device, 0);
}

void* allocate_from_pool(std::size_t bytes, cudaMemPool_t handle, Stream& stream) {
  Pool& pool = pool_of(handle, "cudaMallocFromPoolAsync");
  if (pool.device != device_of(stream)) die("cudaMallocFromPoolAsync: the pool and the stream have different devices");
  if (!may_allocate() || bytes > total_memory()) return nullptr;
  const std::size_t reserved = std::max(pool.reserved, pool.used + bytes);
  if (used_memory(pool.device) - pool.reserved + reserved > total_memory()) return nullptr;
  pool.reserved = reserved;
  pool.used += bytes;
  char* start = Memory::get().allocate(bytes, pool.device, reinterpret_cast<std::uint64_t>(handle));
  Memory::get().live.at(start).made = enqueue(stream, {});
  return start;
}

void free_device(void* p) {
  Memory& memory = Memory::get();
  const auto at = memory.live.find(static_cast<const char*>(p));
  if (at == memory.live.end()) die("cudaFree of what is not allocated");
  finish_device(at->second.device);
  memory.close_for_good(at->second);
  if (at->second.pool != 0) memory.pools.at(at->second.pool).used -= at->second.bytes;
  memory.live.erase(at);
  trim_pools();
}

cudaError_t free_device_in_order(void* p, Stream& stream) {
  Memory& memory = Memory::get();
  const auto at = memory.live.find(static_cast<const char*>(p));
  if (at == memory.live.end()) die("cudaFreeAsync of what is not allocated");
  Allocation& a = at->second;
  if (a.pool == 0) return cudaErrorInvalidValue;
  if (!ordered(stream, a.made)) die("cudaFreeAsync: the stream does not wait for the allocation");
  for (const auto& [id, index] : a.uses) {
    if (!ordered(stream, {id, index})) die("cudaFreeAsync: work of another stream may still use the memory");
  }
  memory.pools.at(a.pool).used -= a.bytes;
  const char* start = at->first;
  memory.dying.insert(memory.live.extract(at));
  enqueue(stream, [start] {
    Memory& now = Memory::get();
    const auto dead = now.dying.find(start);
    now.close_for_good(dead->second);
    now.dying.erase(dead);
  });
  return cudaSuccess;
}

void* allocate_pinned(std::size_t bytes) {
  const std::size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  void* p = rounded < bytes ? nullptr : std::aligned_alloc(kAlignment, rounded);
  if (p == nullptr) return nullptr;
  poison(p, bytes);
  Memory::get().pinned.emplace(static_cast<const char*>(p), Pinned{bytes});
  return p;
}

void free_pinned(void* p) {
  auto& pinned = Memory::get().pinned;
  const auto at = pinned.find(static_cast<const char*>(p));
  if (at == pinned.end()) die("cudaFreeHost of what is not allocated");
  for (const auto& [id, index] : at->second.uses) {
    if (!ordered_for_host({id, index})) die("cudaFreeHost: work that nobody waited for may still use the memory");
  }
  pinned.erase(at);
  std::free(p);
}

bool in_device_range(const void* p) { return Memory::get().contains(p); }
int device_of_memory(const void* p) {
  const auto at = containing(Memory::get().live, p);
  return at == Memory::get().live.end() ? -1 : at->second.device;
}
bool is_pinned(const void* p) { return containing(Memory::get().pinned, p) != Memory::get().pinned.end(); }

Call::Call(const char* function, cudaStream_t stream) : function_(function), stream_(stream_of(stream, function)) {
  if (device_of(stream_) != current_device()) {
    die(std::string(function) + ": device " + std::to_string(current_device()) +
        " is current, the stream belongs to device " + std::to_string(device_of(stream_)));
  }
}

Call& Call::device(const char* name, const void* p, std::int64_t rows, std::int64_t cols, std::int64_t ld,
                   std::size_t size, std::int64_t batch, std::int64_t stride) {
  if (rows <= 0 || cols <= 0 || batch <= 0) return *this;
  if (ld < rows && cols > 1) die(std::string(function_) + ": " + name + " has a leading dimension below its rows");
  return bytes(name, p, static_cast<std::size_t>((batch - 1) * stride + (cols - 1) * ld + rows) * size);
}

Call& Call::bytes(const char* name, const void* p, std::size_t count) {
  if (count == 0) return *this;
  Memory& memory = Memory::get();
  const std::string what = std::string(function_) + ": " + name;
  if (containing(memory.dying, p) != memory.dying.end()) die(what + " was freed");
  const auto at = containing(memory.live, p);
  if (at == memory.live.end())
    die(what + (memory.contains(p) ? " was freed, or never allocated" : " is not device memory"));
  Allocation& a = at->second;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - at->first);
  if (offset + count > a.bytes) {
    die(what + " reaches " + text(offset + count - a.bytes) + " bytes beyond its allocation of " + text(a.bytes));
  }
  if (a.device != device_of(stream_)) {
    die(what + " lies on device " + std::to_string(a.device) + ", the stream belongs to device " +
        std::to_string(device_of(stream_)));
  }
  if (!ordered(stream_, a.made)) die(what + " is used by a stream that does not wait for its allocation");
  used_.push_back(at->first);
  return *this;
}

Call& Call::host(const char* name, const void* p, std::size_t count) {
  if (count == 0) return *this;
  Memory& memory = Memory::get();
  const std::string what = std::string(function_) + ": " + name;
  if (p == nullptr) die(what + " is null");
  if (memory.contains(p)) die(what + " is device memory, host memory was asked for");
  const auto at = containing(memory.pinned, p);
  if (at == memory.pinned.end()) return *this;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - at->first);
  if (offset + count > at->second.bytes) die(what + " reaches beyond its pinned memory");
  pinned_.push_back(at->first);
  return *this;
}

Ticket Call::run(std::function<void()> work) {
  // Uses are written down first: eager work is done when enqueue returns.
  const Ticket ticket{last(stream_).stream, last(stream_).index + 1};
  for (const char* start : used_) Memory::get().live.at(start).uses[ticket.stream] = ticket.index;
  for (const char* start : pinned_) Memory::get().pinned.at(start).uses[ticket.stream] = ticket.index;
  return enqueue(stream_, std::move(work));
}

}  // namespace cuda_shim

using namespace cuda_shim;

size_t brockett_shim_live_allocations(void) {
  const std::lock_guard guard(lock());
  return Memory::get().live.size() + Memory::get().pinned.size();
}

size_t brockett_shim_live_bytes(void) {
  const std::lock_guard guard(lock());
  std::size_t bytes = 0;
  for (const auto& [start, a] : Memory::get().live) bytes += a.bytes;
  for (const auto& [start, p] : Memory::get().pinned) bytes += p.bytes;
  return bytes;
}
