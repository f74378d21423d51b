// A main for compilers without libFuzzer: PROGRAM SEED RUNS changes seeds blindly, without an eye on coverage.
// PROGRAM FILE... runs the inputs in files, as a libFuzzer program does.
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "cases.h"
#include "seeds.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size);

namespace {

using fewbits::Numbers;

void mutate(std::vector<uint8_t>& input, Numbers& numbers) {
    for (uint64_t changes = numbers.below(5); changes > 0 && !input.empty(); --changes) {
        const auto at = static_cast<std::ptrdiff_t>(numbers.below(input.size()));
        const auto count = static_cast<std::ptrdiff_t>(1 + numbers.below(8));
        const auto stop = std::min(at + count, static_cast<std::ptrdiff_t>(input.size()));
        switch (numbers.below(5)) {
            case 0: input[static_cast<size_t>(at)] ^= static_cast<uint8_t>(1u << numbers.below(8)); break;
            case 1: input[static_cast<size_t>(at)] = static_cast<uint8_t>(numbers.next()); break;
            case 2: input.erase(input.begin() + at, input.begin() + stop); break;
            case 3: {
                const auto byte = static_cast<uint8_t>(numbers.next());
                input.insert(input.begin() + at, static_cast<size_t>(count), byte);
                break;
            }
            default: input.resize(static_cast<size_t>(at));
        }
    }
}

int run_files(int num_arguments, char** arguments) {
    for (int i = 1; i < num_arguments; ++i) {
        std::ifstream file(arguments[i], std::ios::binary);
        if (!file) {
            std::fprintf(stderr, "cannot read %s\n", arguments[i]);
            return 2;
        }
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
    }
    return 0;
}

}  // namespace

int main(int num_arguments, char** arguments) {
    const bool blind = num_arguments == 3 && std::isdigit(static_cast<unsigned char>(arguments[1][0])) &&
                       std::isdigit(static_cast<unsigned char>(arguments[2][0]));
    if (!blind) return run_files(num_arguments, arguments);
    const uint64_t seed = std::strtoull(arguments[1], nullptr, 10), runs = std::strtoull(arguments[2], nullptr, 10);
    Numbers numbers(seed);
    const auto seeds = fewbits::make_seeds(seed, 100);
    for (uint64_t i = 0; i < runs; ++i) {
        std::vector<uint8_t> input = seeds[static_cast<size_t>(numbers.below(seeds.size()))];
        if (i >= seeds.size()) mutate(input, numbers);
        LLVMFuzzerTestOneInput(input.data(), input.size());
    }
    std::printf("%llu inputs, no failure\n", static_cast<unsigned long long>(runs));
    return 0;
}
