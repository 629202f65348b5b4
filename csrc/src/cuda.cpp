// Opens the plugin on first use, and keeps the reason where it cannot be had.
#include "brockett/cuda.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <list>
#include <mutex>
#include <vector>

#include "brockett/error.hpp"
#include "linalg/cuda/plugin.hpp"

namespace brockett::cuda {
namespace {

using linalg::cuda::Plugin;

// What the plugin is linked to, each after what it needs itself.
constexpr const char* kLibraries[] = {"libnvJitLink.so.", "libcublasLt.so.", "libcublas.so.", "libcusparse.so.",
                                      "libcusolver.so."};

struct Folders {
  std::mutex mutex;
  std::vector<std::string> paths;
};
Folders& folders() {
  static Folders folders;
  return folders;
}

std::string own_folder() {
  Dl_info info;
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || info.dli_fname == nullptr) return ".";
  return std::filesystem::path(info.dli_fname).parent_path().string();
}

std::string last_dl_error() {
  const char* text = dlerror();
  return text ? text : "unknown error";
}

// Loads NVIDIA's libraries from a folder; the plugin then finds them by the names they carry. True if all were there.
bool preload(const std::string& folder) {
  std::error_code none;
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) files.push_back(entry.path().string());
  for (const char* library : kLibraries) {
    bool found = false;
    for (const std::string& file : files) {
      const std::string name = std::filesystem::path(file).filename().string();
      found = (name.starts_with(library) && dlopen(file.c_str(), RTLD_LAZY | RTLD_LOCAL) != nullptr) || found;
    }
    if (!found) return false;
  }
  return true;
}

void* open_plugin(const std::string& path, std::string& reason) {
  // Found by the plugin's RUNPATH, the loader's cache, or because PyTorch or CuPy has them in the process already.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle) return handle;
  reason = "the CUDA plugin does not load: " + last_dl_error();
  std::vector<std::string> paths;
  {
    const std::lock_guard<std::mutex> lock(folders().mutex);
    paths = folders().paths;
  }
  for (const std::string& folder : paths) {
    if (!preload(folder)) continue;
    handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle) return handle;
    reason = "the CUDA plugin does not load: " + last_dl_error();
  }
  return nullptr;
}

struct Loaded {
  Status status;
  const Plugin* plugin = nullptr;
};

Loaded load() {
  Loaded out;
  const char* named = std::getenv("BROCKETT_CUDA_PLUGIN");
  const bool given = named != nullptr && *named != '\0';
  out.status.plugin = given ? named : own_folder() + "/libbrockett_cuda.so";
  const std::string& path = out.status.plugin;
  std::string& reason = out.status.reason;
  if (access(path.c_str(), R_OK) != 0) {
    reason = given ? "BROCKETT_CUDA_PLUGIN names no readable file: " + path
                   : "this build of brockett has no CUDA plugin (" + path + " is not there)";
    return out;
  }
  // The cheap test first: to map cuBLAS and cuSOLVER takes 0.2 s, and they come in vain where there is no driver. A
  // plugin that was named is opened whatever there is: it may be one that needs none.
  if (!given && dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    reason = "no NVIDIA driver (libcuda.so.1 was not found)";
    return out;
  }
  void* handle = open_plugin(path, reason);
  if (handle == nullptr) return out;
  const auto entry = reinterpret_cast<decltype(&brockett_cuda_plugin)>(dlsym(handle, "brockett_cuda_plugin"));
  const Plugin* plugin = entry ? entry() : nullptr;
  if (plugin == nullptr) {
    reason = path + " is no CUDA plugin of brockett";
  } else if (plugin->abi != linalg::cuda::kAbi) {
    reason = "the CUDA plugin " + path + " has interface " + std::to_string(plugin->abi) + ", this libbrockett has " +
             std::to_string(linalg::cuda::kAbi) + "; both must come from one build";
  } else if (std::string(plugin->version) != version()) {
    reason = "the CUDA plugin " + path + " is of brockett " + plugin->version + ", this libbrockett is " + version() +
             "; both must come from one build";
  } else {
    reason.clear();
    plugin->status(out.status);
    if (out.status.available) out.plugin = plugin;
  }
  return out;
}

const Loaded& loaded() {
  static const Loaded result = [] {
    try {
      return load();
    } catch (const std::exception& e) {
      Loaded failed;
      failed.status.reason = e.what();
      return failed;
    }
  }();
  return result;
}

const Plugin& plugin() {
  const Loaded& l = loaded();
  if (l.plugin == nullptr) throw EngineUnavailable("CUDA: " + l.status.reason);
  return *l.plugin;
}

// Backends of the last few (device, stream). Never destroyed: at the end of the process CUDA is gone before us.
struct Cache {
  struct Entry {
    int device;
    void* stream;
    std::shared_ptr<linalg::Backend> backend;
  };
  static constexpr std::size_t most = 16;
  std::mutex mutex;
  std::list<Entry> entries;  // the last used first
};
Cache& cache() {
  static auto* const cache = new Cache;
  return *cache;
}

linalg::Backend& on_gpu(const Context& context) {
  if (context.backend().name() != "cuda") throw InvalidArgument("context", "does not compute on a GPU");
  return context.backend();
}

}  // namespace

Status status() { return loaded().status; }

DeviceInfo device_info(int device) { return plugin().device_info(device); }

Context make_context(int device, void* stream) {
  const Plugin& p = plugin();
  auto& c = cache();
  const std::lock_guard<std::mutex> lock(c.mutex);
  for (auto it = c.entries.begin(); it != c.entries.end(); ++it) {
    if (it->device != device || it->stream != stream) continue;
    c.entries.splice(c.entries.begin(), c.entries, it);
    return Context(it->backend);
  }
  c.entries.push_front({device, stream, p.make_backend(device, stream)});
  if (c.entries.size() > Cache::most) c.entries.pop_back();  // whoever still holds it keeps it alive
  return Context(c.entries.front().backend);
}

void synchronize(const Context& context) {
  if (context.backend().name() == "cuda") plugin().synchronize(context.backend());
}

void synchronize_device(int device) { plugin().synchronize_device(device); }

void add_library_folder(const std::string& path) {
  const std::lock_guard<std::mutex> lock(folders().mutex);
  folders().paths.push_back(path);
}

std::shared_ptr<void> allocate(const Context& context, std::size_t bytes) {
  auto backend = context.shared_backend();
  on_gpu(context);
  return {backend->single().allocate(bytes), [backend](void* p) { backend->single().deallocate(p); }};
}

void upload(const Context& context, const void* host, void* device, std::size_t bytes) {
  plugin().upload(on_gpu(context), host, device, bytes);
}

void download(const Context& context, const void* device, void* host, std::size_t bytes) {
  plugin().download(on_gpu(context), device, host, bytes);
}

void convert(const Context& context, DType from, const void* source, index_t source_ld, DType to, void* target,
             index_t target_ld, index_t rows, index_t cols) {
  linalg::Backend& backend = on_gpu(context);
  if (to == DType::float32) {
    backend.single().convert_from(from, source, source_ld, {static_cast<float*>(target), rows, cols, target_ld});
  } else if (to == DType::float64) {
    backend.full().convert_from(from, source, source_ld, {static_cast<double*>(target), rows, cols, target_ld});
  } else {
    throw InvalidArgument("to", "must be float32 or float64");
  }
}

int device_of(const void* pointer, int likely) { return plugin().device_of(pointer, likely); }

void order(int device, void* first, void* then) { plugin().order(device, first, then); }

}  // namespace brockett::cuda
