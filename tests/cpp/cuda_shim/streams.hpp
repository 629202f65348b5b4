// The inside of schedule.hpp, for the entry points of streams and events.
#pragma once

#include <deque>
#include <vector>

#include "schedule.hpp"

namespace cuda_shim {

struct Stream {
  struct Item {
    std::vector<Ticket> waits;
    std::function<void()> work;
  };
  std::uint64_t id = 0;
  int device = 0;
  bool blocking = false;  // orders itself with the legacy stream of the device
  bool legacy = false;
  bool destroyed = false;
  std::deque<Item> queue;
  std::uint64_t enqueued = 0;
  std::uint64_t completed = 0;
  Clock known;  // what is done before whatever comes next
};

cudaStream_t create_stream(int device, bool blocking);
void destroy_stream(Stream& stream);
/// `stream` goes on when `ticket` is done, and knows what `clock` knew.
void wait_in_order(Stream& stream, Ticket ticket, const Clock& clock);
void host_learns(const Clock& clock);
std::size_t pending();

}  // namespace cuda_shim
