// Running independent pieces of work on a few threads.
#pragma once

#include <cstddef>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace fewbits {

// Calls work(i) for i = 0 ... count - 1, each on a thread of its own; the first exception (by i) is thrown at the end.
template <typename Work>
void on_threads(size_t count, const Work& work) {
    std::vector<std::exception_ptr> failures(count);
    const auto guarded = [&](size_t i) {
        try {
            work(i);
        } catch (...) {
            failures[i] = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    for (size_t i = 1; i < count; ++i) {
        try {
            threads.emplace_back(guarded, i);
        } catch (const std::system_error&) {
            guarded(i);  // the system has no thread to give
        }
    }
    if (count != 0) guarded(0);
    for (std::thread& thread : threads) thread.join();
    for (const std::exception_ptr& failure : failures) {
        if (failure) std::rethrow_exception(failure);
    }
}

}  // namespace fewbits
