// Threads: the process-wide limit on BLAS, and our own workers. Nothing lives on between calls, so that fork() is
// harmless.
#include "linalg/lapack/threads.hpp"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <limits>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "brockett/context.hpp"
#include "linalg/lapack/blas.hpp"

#ifdef __linux__
#include <sched.h>
#endif

extern "C" {
void BROCKETT_FORTRAN(ilaver)(brockett::linalg::lapack::blas_int* major, brockett::linalg::lapack::blas_int* minor,
                              brockett::linalg::lapack::blas_int* patch);
#ifdef BROCKETT_BLAS_OPENBLAS
#define BROCKETT_OPENBLAS(name) BROCKETT_PASTE(BROCKETT_BLAS_PREFIX, name, BROCKETT_OPENBLAS_CSUFFIX)
int BROCKETT_OPENBLAS(openblas_get_num_threads)();
void BROCKETT_OPENBLAS(openblas_set_num_threads)(int);
char* BROCKETT_OPENBLAS(openblas_get_config)();
char* BROCKETT_OPENBLAS(openblas_get_corename)();
#endif
}

namespace brockett {
namespace linalg::lapack {
namespace {

constexpr int kNoLimit = std::numeric_limits<int>::max();

// What OpenBLAS is set to right now, by whomever.
int blas_setting() {
#ifdef BROCKETT_BLAS_OPENBLAS
  return BROCKETT_OPENBLAS(openblas_get_num_threads)();
#else
  return kNoLimit;
#endif
}

void change_blas_setting([[maybe_unused]] int count) {
#ifdef BROCKETT_BLAS_OPENBLAS
  BROCKETT_OPENBLAS(openblas_set_num_threads)(count);
#endif
}

// The limits in force. OpenBLAS has one setting for the whole process, and callers come from any number of threads.
class Limits {
 public:
  static Limits& get() {
    static Limits& limits = *new Limits;  // never destroyed: tokens may outlive the end of main
    return limits;
  }

  unsigned add(int count) {
    const std::lock_guard lock(mutex_);
    requests_.insert(count);
    apply();
    return generation_;
  }

  void remove(int count, unsigned generation) noexcept {
    const std::lock_guard lock(mutex_);
    if (generation != generation_) return;  // a token from before a fork
    requests_.erase(requests_.find(count));
    apply();
  }

  int users() {
    const std::lock_guard lock(mutex_);
    const int now = blas_setting();
    return now != ours_ ? now : users_;
  }

 private:
  // A fork while another thread holds the mutex would leave it locked in the child for ever, and while another thread
  // holds a token, BLAS slowed down: the child has neither that thread nor its token. What BLAS is set to stays as it
  // is until the child's first call: nothing must be started here.
  Limits() {
    pthread_atfork([] { get().mutex_.lock(); }, [] { get().mutex_.unlock(); },
                   [] {
                     Limits& limits = get();
                     limits.requests_.clear();
                     ++limits.generation_;
                     limits.mutex_.unlock();
                   });
  }

  void apply() noexcept {
    const int now = blas_setting();
    if (now != ours_) users_ = now;  // changed behind our back: that is the user's wish
    const int wanted = requests_.empty() ? users_ : std::min(users_, *requests_.begin());
    if (wanted != now) change_blas_setting(wanted);
    ours_ = wanted;
  }

  std::mutex mutex_;
  std::multiset<int> requests_;
  int users_ = 0;  // the setting without us
  int ours_ = 0;  // the setting we left last; 0 before the first time
  unsigned generation_ = 0;
};

std::atomic<int> chosen_threads{0};
thread_local bool inside_worker = false;
thread_local int workers_of_narrow_products = 1;

// Cores this process may run on.
int cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// One for_each: items are handed out in ascending order, so that once an item has failed all before it have been
// started, and the lowest failing index is the same on every run.
struct Job {
  Job(index_t count_, const std::function<void(index_t)>& f_) : count(count_), f(f_) {}

  const index_t count;
  const std::function<void(index_t)>& f;
  std::atomic<index_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable finished;
  std::size_t running = 0;
  index_t failed = std::numeric_limits<index_t>::max();
  std::exception_ptr error;

  void work() {
    inside_worker = true;
    while (!stop) {
      const index_t i = next++;
      if (i >= count) break;
      try {
        f(i);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (i < failed) {
          failed = i;
          error = std::current_exception();
        }
        stop = true;
      }
    }
    const std::lock_guard lock(mutex);
    --running;
    finished.notify_one();
  }
};

}  // namespace

std::shared_ptr<void> limit_blas_threads(int count) {
  struct Token {
    explicit Token(int count_) : count(count_), generation(Limits::get().add(count_)) {}
    ~Token() { Limits::get().remove(count, generation); }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;
    int count;
    unsigned generation;
  };
  return std::make_shared<Token>(count);
}

int blas_threads_in_force() {
  const int now = blas_setting();
  return now == kNoLimit ? 0 : now;
}

int blas_threads() {
  const int users = Limits::get().users();
  return users == kNoLimit ? 0 : users;
}

void set_blas_threads(int count) { change_blas_setting(count); }

std::shared_ptr<void> threads_for_order(index_t n) {
  constexpr index_t large = 1024;
  return limit_blas_threads(inside_worker || n < large ? 1 : threads());
}

// BLAS that waits for work spins, and its threads would take the cores from ours; where it cannot be told, they are its own.
std::shared_ptr<void> share_narrow_products() {
  struct Scope {
    Scope() : blas(limit_blas_threads(1)), before(workers_of_narrow_products) {}
    ~Scope() { workers_of_narrow_products = before; }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    std::shared_ptr<void> blas;
    int before;
  };
  const int count = inside_worker || blas_threads_in_force() == 0 ? 1 : threads();
  auto scope = std::make_shared<Scope>();
  workers_of_narrow_products = count;
  return scope;
}

int narrow_workers() { return workers_of_narrow_products; }

void run_on_workers(index_t count, const std::function<void(index_t)>& f, const std::function<void()>& poll) {
  const auto n_workers =
      static_cast<std::size_t>(std::min<index_t>(count, inside_worker ? 1 : static_cast<index_t>(threads())));
  if (poll) poll();
  if (count == 1) return f(0);  // alone it may use all threads of BLAS
  const auto token = limit_blas_threads(1);
  std::vector<std::thread> workers;
  Job job(count, f);
  if (n_workers > 1) {
    const std::lock_guard lock(job.mutex);
    workers.reserve(n_workers);
    try {
      while (workers.size() < n_workers) workers.emplace_back(&Job::work, &job);
    } catch (const std::exception&) {
      // No more threads, or no memory for one: go on with those there are.
    }
    job.running = workers.size();
  }
  if (workers.empty()) {
    for (index_t i = 0; i < count; ++i) {
      if (poll && i > 0) poll();
      f(i);
    }
    return;
  }
  std::exception_ptr poll_error;
  for (std::unique_lock lock(job.mutex); job.running > 0;) {
    job.finished.wait_for(lock, std::chrono::milliseconds(20), [&] { return job.running == 0; });
    if (!poll || poll_error || job.running == 0) continue;
    lock.unlock();
    try {
      poll();
    } catch (...) {
      poll_error = std::current_exception();
      job.stop = true;
    }
    lock.lock();
  }
  for (std::thread& worker : workers) worker.join();
  if (poll_error) std::rethrow_exception(poll_error);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace linalg::lapack

void set_threads(int count) {
  if (count < 0) throw InvalidArgument("count", "must be 0 or a number of threads, is " + std::to_string(count));
  linalg::lapack::chosen_threads = count;
}

int threads() {
  using namespace linalg::lapack;
  const int chosen = chosen_threads;
  const int most = std::min(cores(), std::max(1, Limits::get().users()));
  return chosen > 0 ? std::min(chosen, most) : most;
}

std::string blas_info() {
  using linalg::lapack::blas_int;
  blas_int major = 0, minor = 0, patch = 0;
  BROCKETT_FORTRAN(ilaver)(&major, &minor, &patch);
  const std::string lapack = "LAPACK " + std::to_string(major) + "." + std::to_string(minor) + "." +
                             std::to_string(patch) + ", " + std::to_string(8 * sizeof(blas_int)) + "-bit integers";
#ifdef BROCKETT_BLAS_OPENBLAS
  // "OpenBLAS 0.3.34  USE64BITINT DYNAMIC_ARCH …": name and version are the first two words.
  const std::string config = BROCKETT_OPENBLAS(openblas_get_config)();
  const std::string name = config.substr(0, config.find(' ', config.find(' ') + 1));
  return name + " (" + BROCKETT_OPENBLAS(openblas_get_corename)() + ", " +
         std::to_string(linalg::lapack::blas_threads()) + " threads), " + lapack;
#else
  return lapack;
#endif
}

}  // namespace brockett
