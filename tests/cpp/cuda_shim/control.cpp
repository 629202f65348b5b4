// What tests set and read, and what every entry point asks first.
#include "control.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "device.hpp"
#include "schedule.hpp"
#include "streams.hpp"

namespace cuda_shim {
namespace {

struct Injected {
  int value = 0;
  std::size_t count = 0;
};
using ByName = std::map<std::string, Injected, std::less<>>;

struct Control {
  std::map<std::string, std::size_t, std::less<>> calls;
  ByName statuses, infos;
  std::size_t until_failure = 0;  // allocations that still succeed, and the one that does not; 0: none fails
  std::size_t failures = 0;       // how many are to fail
  std::size_t handles = 0;
  std::size_t total = default_total;
  int devices = 2;
  int driver = kVersion;

  void fail(std::size_t k, std::size_t count) {
    until_failure = k;
    failures = k > 0 ? count : 0;
  }
  static constexpr std::size_t kForever = ~std::size_t{0};
  static constexpr std::size_t default_total = std::size_t{256} << 20;
  static constexpr int kVersion = 13000;
};

Control& control() {
  static Control& all = *[] {
    auto* fresh = new Control;
    if (const char* k = std::getenv("BROCKETT_SHIM_FAIL_MALLOC"))
      fresh->fail(std::strtoul(k, nullptr, 10), Control::kForever);
    if (const char* name = std::getenv("BROCKETT_SHIM_FAIL_INFO")) fresh->infos[name] = {1, Control::kForever};
    if (const char* version = std::getenv("BROCKETT_SHIM_DRIVER")) fresh->driver = std::atoi(version);
    if (const char* count = std::getenv("BROCKETT_SHIM_DEVICES")) fresh->devices = std::atoi(count);
    return fresh;
  }();
  return all;
}

int take(ByName& all, std::string_view name) {
  const auto at = all.find(name);
  if (at == all.end() || at->second.count == 0) return 0;
  --at->second.count;
  return at->second.value;
}

using Lock = std::lock_guard<std::recursive_mutex>;

}  // namespace

int enter(const char* function) {
  const std::string_view name = function;
  const auto at = control().calls.find(name);
  if (at == control().calls.end()) {
    control().calls.emplace(name, 1);
  } else {
    ++at->second;
  }
  return control().statuses.empty() ? 0 : take(control().statuses, name);
}

int injected_info(const char* function) { return take(control().infos, function); }

bool may_allocate() {
  Control& all = control();
  if (all.until_failure > 0 && --all.until_failure > 0) return true;
  if (all.failures == 0) return true;
  if (all.failures != Control::kForever) --all.failures;
  return false;
}
void handle_created() { ++control().handles; }
void handle_destroyed() { --control().handles; }

int device_count() { return control().devices; }
std::size_t total_memory() { return control().total; }
cudaError_t driver_state() {
  if (control().driver < Control::kVersion) return cudaErrorInsufficientDriver;  // also where there is none
  return control().devices == 0 ? cudaErrorNoDevice : cudaSuccess;
}
bool has_pools() {
  const char* none = std::getenv("BROCKETT_SHIM_NO_POOLS");
  return none == nullptr || std::string_view(none) != "1";
}
int driver_version() { return control().driver; }

}  // namespace cuda_shim

using namespace cuda_shim;

int brockett_shim_mode(void) { return static_cast<int>(mode()); }

void brockett_shim_reset(void) {
  const Lock guard(lock());
  Control& all = control();
  all.statuses.clear();
  all.infos.clear();
  all.fail(0, 0);
  all.total = Control::default_total;
  all.devices = 2;
  all.driver = Control::kVersion;
}

size_t brockett_shim_live_handles(void) {
  const Lock guard(lock());
  return control().handles;
}
size_t brockett_shim_pending(void) {
  const Lock guard(lock());
  return pending();
}
size_t brockett_shim_calls(const char* function) {
  const Lock guard(lock());
  const auto at = control().calls.find(std::string_view(function));
  return at == control().calls.end() ? 0 : at->second;
}

void brockett_shim_fail_allocation(size_t k) {
  const Lock guard(lock());
  control().fail(k, Control::kForever);
}
void brockett_shim_fail_allocations(size_t k, size_t count) {
  const Lock guard(lock());
  control().fail(k, count);
}
int brockett_shim_failure_pending(void) {
  const Lock guard(lock());
  return control().until_failure > 0;
}
void brockett_shim_fail_status(const char* function, int status, size_t count) {
  const Lock guard(lock());
  control().statuses.insert_or_assign(function, Injected{status, count});
}
void brockett_shim_fail_info(const char* function, int info, size_t count) {
  const Lock guard(lock());
  control().infos.insert_or_assign(function, Injected{info, count});
}
void brockett_shim_set_memory(size_t total) {
  const Lock guard(lock());
  control().total = total;
}
void brockett_shim_set_devices(int count) {
  const Lock guard(lock());
  control().devices = count;
}
void brockett_shim_set_driver(int version) {
  const Lock guard(lock());
  control().driver = version;
}
