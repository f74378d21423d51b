// write_seeds FOLDER SEED COUNT: writes a corpus to begin with, one file an input.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "seeds.h"

int main(int num_arguments, char** arguments) {
    if (num_arguments != 4) {
        std::fprintf(stderr, "usage: write_seeds FOLDER SEED COUNT\n");
        return 2;
    }
    const auto seeds = fewbits::make_seeds(std::strtoull(arguments[2], nullptr, 10),
                                           static_cast<size_t>(std::strtoull(arguments[3], nullptr, 10)));
    for (size_t i = 0; i < seeds.size(); ++i) {
        const std::string path = std::string(arguments[1]) + "/seed-" + std::to_string(i);
        std::FILE* file = std::fopen(path.c_str(), "wb");
        if (file == nullptr || std::fwrite(seeds[i].data(), 1, seeds[i].size(), file) != seeds[i].size()) {
            std::fprintf(stderr, "cannot write %s\n", path.c_str());
            return 1;
        }
        std::fclose(file);
    }
    return 0;
}
