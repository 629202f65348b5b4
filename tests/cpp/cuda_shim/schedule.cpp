#include "schedule.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string_view>
#include <utility>

#include "device.hpp"
#include "streams.hpp"

namespace cuda_shim {
namespace {

// Handles are numbers that nobody can follow; an old one never becomes another stream.
constexpr std::uint64_t kFirstStream = 0x10000;

struct Schedule {
  std::map<std::uint64_t, std::unique_ptr<Stream>> streams;  // by id: the newest last
  std::map<int, std::uint64_t> legacy;                       // by device
  std::uint64_t next = kFirstStream;
  Clock host;

  Stream& add(int device, bool blocking) {
    auto stream = std::make_unique<Stream>();
    stream->id = next;
    stream->device = device;
    stream->blocking = blocking;
    next += 0x10;
    return *streams.emplace(stream->id, std::move(stream)).first->second;
  }
  Stream& legacy_stream(int device) {
    const auto [at, fresh] = legacy.try_emplace(device, 0);
    if (fresh) {
      Stream& stream = add(device, true);
      stream.legacy = true;
      at->second = stream.id;
    }
    return *streams.at(at->second);
  }
};

// Never destroyed: statics of other files may free memory while the program ends.
Schedule& schedule() {
  static Schedule& all = *new Schedule;
  return all;
}

void merge(Clock& into, const Clock& from) {
  for (const auto& [stream, index] : from) {
    auto& known = into[stream];
    known = std::max(known, index);
  }
}

void run_first(Stream& stream) {
  const Stream::Item item = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (item.work) item.work();
  ++stream.completed;
}

// guard and eager: what a ticket needs, and no more
void run_until(Ticket ticket) {
  const auto at = schedule().streams.find(ticket.stream);
  if (at == schedule().streams.end()) return;
  Stream& stream = *at->second;
  while (stream.completed < ticket.index) {
    for (const Ticket& wait : stream.queue.front().waits) run_until(wait);
    run_first(stream);
  }
}

// deferred: everything, the newest stream as far as it gets
void run_all_newest_first() {
  for (bool any = true; any;) {
    any = false;
    for (auto at = schedule().streams.rbegin(); at != schedule().streams.rend(); ++at) {
      Stream& stream = *at->second;
      while (!stream.queue.empty() &&
             std::all_of(stream.queue.front().waits.begin(), stream.queue.front().waits.end(), done)) {
        run_first(stream);
        any = true;
      }
    }
  }
  if (pending() > 0) die("streams wait for each other");
}

void forget_destroyed() {
  std::erase_if(schedule().streams, [](const auto& s) { return s.second->destroyed && s.second->queue.empty(); });
}

}  // namespace

Mode mode() {
  static const Mode chosen = [] {
    const char* text = std::getenv("BROCKETT_SHIM_MODE");
    const std::string_view name = text == nullptr ? "eager" : text;
    if (name == "eager") return Mode::eager;
    if (name == "deferred") return Mode::deferred;
    if (name == "guard") return Mode::guard;
    die("BROCKETT_SHIM_MODE must be eager, deferred or guard, is " + std::string(name));
  }();
  return chosen;
}

std::recursive_mutex& lock() {
  static std::recursive_mutex& mutex = *new std::recursive_mutex;
  return mutex;
}

void die(const std::string& message) {
  std::fprintf(stderr, "cuda shim: %s\n", message.c_str());
  std::abort();
}

Stream& stream_of(cudaStream_t handle, const char* function) {
  if (handle == nullptr || handle == cudaStreamLegacy) return schedule().legacy_stream(current_device());
  if (handle == cudaStreamPerThread) {
    thread_local std::map<int, cudaStream_t> mine;
    const auto [at, fresh] = mine.try_emplace(current_device(), nullptr);
    if (fresh) at->second = create_stream(current_device(), true);
    return stream_of(at->second, function);
  }
  const auto at = schedule().streams.find(reinterpret_cast<std::uint64_t>(handle));
  if (at == schedule().streams.end() || at->second->destroyed) {
    die(std::string(function) + ": the stream is not one, or was destroyed");
  }
  return *at->second;
}

int device_of(const Stream& stream) { return stream.device; }

cudaStream_t create_stream(int device, bool blocking) {
  return reinterpret_cast<cudaStream_t>(schedule().add(device, blocking).id);
}

void destroy_stream(Stream& stream) {
  if (stream.legacy) die("cudaStreamDestroy of the default stream");
  stream.destroyed = true;  // CUDA returns at once, too: what is queued still runs
  forget_destroyed();
}

Ticket enqueue(Stream& stream, std::function<void()> work) {
  Stream::Item item{{}, std::move(work)};
  merge(stream.known, schedule().host);
  const auto behind = [&](const Stream& other) {
    item.waits.push_back(last(other));
    merge(stream.known, other.known);
  };
  if (stream.legacy) {
    for (const auto& [id, other] : schedule().streams) {
      if (other->blocking && other->device == stream.device && id != stream.id) behind(*other);
    }
  } else if (stream.blocking) {
    behind(schedule().legacy_stream(stream.device));
  }
  stream.queue.push_back(std::move(item));
  const Ticket ticket{stream.id, ++stream.enqueued};
  stream.known[stream.id] = ticket.index;
  if (mode() == Mode::eager) run_until(ticket);
  return ticket;
}

void wait_in_order(Stream& stream, Ticket ticket, const Clock& clock) {
  merge(stream.known, clock);
  Stream::Item item{{ticket}, {}};
  stream.queue.push_back(std::move(item));
  stream.known[stream.id] = ++stream.enqueued;
  if (mode() == Mode::eager) run_until({stream.id, stream.enqueued});
}

bool ordered(const Stream& stream, Ticket ticket) {
  const auto knows = [&](const Clock& clock) {
    const auto at = clock.find(ticket.stream);
    return at != clock.end() && at->second >= ticket.index;
  };
  return ticket.index == 0 || knows(stream.known) || knows(schedule().host);
}

bool ordered_for_host(Ticket ticket) {
  const auto at = schedule().host.find(ticket.stream);
  return ticket.index == 0 || (at != schedule().host.end() && at->second >= ticket.index);
}

void host_learns(const Clock& clock) { merge(schedule().host, clock); }

Ticket last(const Stream& stream) { return {stream.id, stream.enqueued}; }

bool done(Ticket ticket) {
  const auto at = schedule().streams.find(ticket.stream);
  return at == schedule().streams.end() || at->second->completed >= ticket.index;
}

void finish(Ticket ticket) {
  if (!done(ticket)) {
    const Open open;
    if (mode() == Mode::deferred) {
      run_all_newest_first();
    } else {
      run_until(ticket);
    }
  }
  forget_destroyed();
}

void finish(Stream& stream) {
  host_learns(stream.known);
  finish(last(stream));
}

void finish_device(int device) {
  for (const auto& [id, stream] : schedule().streams) {
    if (stream->device == device) host_learns(stream->known);
  }
  const Open open;
  if (mode() == Mode::deferred) run_all_newest_first();
  for (const auto& [id, stream] : schedule().streams) {
    if (stream->device == device) run_until(last(*stream));
  }
  forget_destroyed();
}

std::size_t pending() {
  std::size_t n = 0;
  for (const auto& [id, stream] : schedule().streams) n += stream->queue.size();
  return n;
}

}  // namespace cuda_shim
