// How libbrockett finds its CUDA plugin, and what it says where it cannot. What was found is kept for the life of a process:
// each case runs in one of its own.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>

#include "brockett/brockett.hpp"
#include "linalg/linalg.hpp"

namespace {

using namespace brockett;

class CudaLoaderDeathTest : public testing::Test {
 protected:
  // "threadsafe" starts the program again for the statement: nothing is loaded yet
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

/// Run in the child: with this file as the plugin (null: none is named), in this environment.
[[noreturn]] void in_child(const char* plugin, const std::function<void()>& f) {
  if (plugin == nullptr) {
    unsetenv("BROCKETT_CUDA_PLUGIN");
  } else {
    setenv("BROCKETT_CUDA_PLUGIN", plugin, 1);
  }
  try {
    f();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "unexpected: %s\n", e.what());
    std::_Exit(2);
  }
  std::_Exit(0);
}

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "FAILED: %s\n", what);
  std::_Exit(1);
}

/// CUDA is not available; the reason goes to stderr, and into the exception of whoever asks for a context.
void print_reason() {
  const cuda::Status status = cuda::status();
  require(!status.available && status.devices == 0, "not available");
  require(cuda::status().reason == status.reason, "the same answer again");
  for (const std::function<void()>& call :
       {std::function<void()>([] { cuda::make_context(); }), std::function<void()>([] { cuda::device_info(0); })}) {
    try {
      call();
      require(false, "an exception");
    } catch (const EngineUnavailable& e) {
      require(std::string(e.what()).find(status.reason) != std::string::npos, "the reason in the exception");
    }
  }
  // the host is none the worse
  const double x[] = {1, 2};
  Autocorrelation R(Context{}, 2);
  R.update(samples(x, 1, 2));
  require(R.matrix()(1, 1) == 4, "R on the host");
  std::fprintf(stderr, "%s: %s\n", status.plugin.c_str(), status.reason.c_str());
}

TEST_F(CudaLoaderDeathTest, no_plugin_is_installed) {
  EXPECT_EXIT(in_child(nullptr, print_reason), testing::ExitedWithCode(0),
              "libbrockett_cuda.so: this build of brockett has no CUDA plugin");
}

TEST_F(CudaLoaderDeathTest, the_named_file_is_not_there) {
  EXPECT_EXIT(in_child("/no/such/folder/plugin.so", print_reason), testing::ExitedWithCode(0),
              "BROCKETT_CUDA_PLUGIN names no readable file: /no/such/folder/plugin.so");
}

TEST_F(CudaLoaderDeathTest, the_file_is_no_library) {
  const std::string path = testing::TempDir() + "brockett_not_a_library.so";
  std::ofstream(path) << "this is text\n";
  EXPECT_EXIT(in_child(path.c_str(), print_reason), testing::ExitedWithCode(0),
              "the CUDA plugin does not load: .*not_a_library");
  std::filesystem::remove(path);
}

TEST_F(CudaLoaderDeathTest, the_library_is_no_plugin) {
  EXPECT_EXIT(in_child(NO_ENTRY, print_reason), testing::ExitedWithCode(0), "is no CUDA plugin of brockett");
}

TEST_F(CudaLoaderDeathTest, the_plugin_has_another_interface) {
  EXPECT_EXIT(in_child(OTHER_ABI, print_reason), testing::ExitedWithCode(0),
              "has interface [0-9]+, this libbrockett has [0-9]+; both must come from one build");
}

TEST_F(CudaLoaderDeathTest, the_plugin_is_of_another_release) {
  EXPECT_EXIT(in_child(OTHER_VERSION, print_reason), testing::ExitedWithCode(0),
              "is of brockett 0\\.0\\.1, this libbrockett is [0-9.]+; both must come from one build");
}

TEST_F(CudaLoaderDeathTest, no_driver) {
  EXPECT_EXIT(in_child(SHIM_PLUGIN,
                       [] {
                         setenv("BROCKETT_SHIM_DRIVER", "0", 1);
                         print_reason();
                         require(cuda::status().runtime == 13000 && cuda::status().driver == 0, "versions");
                       }),
              testing::ExitedWithCode(0), "no NVIDIA driver is running");
}

TEST_F(CudaLoaderDeathTest, the_driver_is_too_old) {
  EXPECT_EXIT(in_child(SHIM_PLUGIN,
                       [] {
                         setenv("BROCKETT_SHIM_DRIVER", "12080", 1);
                         print_reason();
                       }),
              testing::ExitedWithCode(0), "the NVIDIA driver serves CUDA 12\\.8 .*older than the CUDA 13\\.0");
}

TEST_F(CudaLoaderDeathTest, a_driver_without_devices) {
  EXPECT_EXIT(in_child(SHIM_PLUGIN,
                       [] {
                         setenv("BROCKETT_SHIM_DEVICES", "0", 1);
                         print_reason();
                       }),
              testing::ExitedWithCode(0), "finds no device");
}

// A whole problem through the installed way: loader, contexts, memory, streams, results.
TEST_F(CudaLoaderDeathTest, a_good_plugin_computes) {
  EXPECT_EXIT(in_child(SHIM_PLUGIN,
                       [] {
                         const cuda::Status status = cuda::status();
                         require(status.available && status.reason.empty() && status.devices == 2, "available");
                         require(status.runtime == 13000 && status.cublas == 130100 && status.cusolver > 0, "versions");
                         const cuda::DeviceInfo info = cuda::device_info(1);
                         require(info.name == "CPU shim 1" && info.major == 9, "name of the device");
                         require(info.free_memory > 0 && info.free_memory <= info.total_memory, "memory of the device");

                         const Context context = cuda::make_context(1);
                         require(context.backend().name() == "cuda", "name of the backend");
                         require(&cuda::make_context(1).backend() == &context.backend(), "one backend per stream");
                         require(&cuda::make_context(0).backend() != &context.backend(), "and per device");

                         // X = diag(1, 2): R = diag(1/2, 2)
                         const double x[] = {1, 0, 0, 2};
                         const auto device = cuda::allocate(context, sizeof x);
                         require(cuda::device_of(device.get()) == 1 && cuda::device_of(x) == -1, "whose memory it is");
                         cuda::upload(context, x, device.get(), sizeof x);
                         Autocorrelation R(context, 2);
                         R.update(samples(static_cast<const double*>(device.get()), 2, 2));
                         const Array<double> matrix = R.matrix();
                         double host[4] = {};
                         cuda::download(context, matrix.data(), host, sizeof host);
                         require(host[0] == 0.5 && host[1] == 0 && host[3] == 2, "R");
                         cuda::synchronize(context);
                         cuda::synchronize_device(1);

                         for (const int wrong : {-1, 2}) {
                           for (const bool ask : {false, true}) {
                             try {
                               if (ask) cuda::device_info(wrong);
                               if (!ask) cuda::make_context(wrong);
                               require(false, "an exception");
                             } catch (const InvalidArgument& e) {
                               require(e.argument() == "device", "the argument's name");
                             }
                           }
                         }
                         try {
                           cuda::upload(Context{}, x, device.get(), 8);
                           require(false, "an exception");
                         } catch (const InvalidArgument& e) {
                           require(e.argument() == "context", "the argument's name");
                         }
                         std::fprintf(stderr, "all is well\n");
                       }),
              testing::ExitedWithCode(0), "all is well");
}

}  // namespace
