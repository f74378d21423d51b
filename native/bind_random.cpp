// fewbits._core: shared randomness, and scores of candidates. Python allocates what is filled; sizes are checked here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <limits>
#include <utility>
#include <vector>

#include "core/errors.h"
#include "core/random.h"
#include "core/score.h"

namespace nb = nanobind;

namespace fewbits {

namespace {

// Of two types only: each type that nanobind reads is code of its own. What arrays hold is checked here.
using ReadArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using WriteArray = nb::ndarray<nb::c_contig, nb::device::cpu>;

void check_array(nb::dlpack::dtype expected, nb::dlpack::dtype found, size_t expected_size, size_t size,
                 const void* data) {
    if (found != expected) throw InvalidArgument("an array has another dtype.");
    if (size != expected_size) throw InvalidArgument("two arrays differ in size.");
    if (reinterpret_cast<uintptr_t>(data) % (expected.bits / 8) != 0) throw InvalidArgument("an array is not aligned.");
}

// Sizes are below 2^47, those of arrays in memory, where they are multiplied.
template <class T>
const T* read(const ReadArray& array, size_t size) {
    check_array(nb::dtype<T>(), array.dtype(), size, array.size(), array.data());
    return static_cast<const T*>(array.data());
}

template <class T>
T* write(const WriteArray& array, size_t size) {
    check_array(nb::dtype<T>(), array.dtype(), size, array.size(), array.data());
    return static_cast<T*>(array.data());
}

void bound_words(uint64_t seed, uint32_t purpose, const ReadArray& numbers, const ReadArray& items, size_t num_places,
                 const WriteArray& words) {
    const size_t count = items.size();
    const bool number_each = numbers.size() != 1;
    if (purpose > 0xFF || num_places > size_t{1} << 26) throw InvalidArgument("a counter has no such place.");
    const auto* each_number = read<uint32_t>(numbers, number_each ? count : 1);
    const auto* each_item = read<uint64_t>(items, count);
    auto* out = write<uint32_t>(words, count * num_places);
    nb::gil_scoped_release release;
    random_words(seed, purpose, each_number, number_each, each_item, count, num_places, out);
}

// One number of each number.
template <class T, void (*fill)(const T*, size_t, double*)>
void bound_map(const ReadArray& in, const WriteArray& out) {
    const size_t size = in.size();
    const T* from = read<T>(in, size);
    auto* to = write<double>(out, size);
    nb::gil_scoped_release release;
    fill(from, size, to);
}

void bound_candidates(uint64_t seed, uint32_t number, uint64_t start, size_t count, const WriteArray& z) {
    if (count == 0) return;
    const size_t dim = z.size() / count;
    auto* out = write<float>(z, dim * count);
    nb::gil_scoped_release release;
    fill_candidates(seed, number, start, count, dim, out);
}

// What the arrays of a call say, checked against each other. Blocks have a number each; a table may be none.
struct Call {
    Call(uint64_t seed, const ReadArray& numbers, const ReadArray& a, const ReadArray& b, const nb::object& z,
         uint64_t start, size_t count) {
        const size_t num_blocks = numbers.size(), dim = a.ndim() == 2 ? a.shape(1) : 0, size = num_blocks * dim;
        blocks = {seed, read<uint32_t>(numbers, num_blocks), num_blocks, dim, read<float>(a, size),
                  read<float>(b, size)};
        if (start > std::numeric_limits<int64_t>::max() - count) throw InvalidArgument("a candidate is out of range.");
        if (z.is_none()) return;
        held = nb::cast<ReadArray>(z, false);
        if (held.ndim() != 2 || held.shape(0) != dim) throw InvalidArgument("a table has another dimension.");
        table = {read<float>(held, held.size()), held.shape(1)};
        if (start > table.num_candidates || count > table.num_candidates - start) {
            throw InvalidArgument("a table has fewer candidates.");
        }
    }

    Blocks blocks;
    CandidateTable table;
    ReadArray held;
};

void bound_scores(uint64_t seed, const ReadArray& numbers, const ReadArray& a, const ReadArray& b,
                  const nb::object& table, uint64_t start, size_t count, const WriteArray& scores) {
    const Call call(seed, numbers, a, b, table, start, count);
    auto* out = write<float>(scores, call.blocks.num_blocks * count);
    nb::gil_scoped_release release;
    fill_scores(call.blocks, call.table, start, count, out);
}

void copy_chosen(const std::vector<Chosen>& chosen, int64_t* indices, double* values) {
    for (size_t i = 0; i < chosen.size(); ++i) {
        if (chosen[i].candidate < 0) throw InvalidArgument("no candidate of a block has a score that is a number.");
        indices[i] = chosen[i].candidate;
        values[i] = chosen[i].value;
    }
}

void bound_gumbel_argmax(uint64_t seed, const ReadArray& numbers, const ReadArray& scores, uint64_t start,
                         const WriteArray& indices, const WriteArray& values) {
    const size_t num_blocks = numbers.size(), count = scores.ndim() == 2 ? scores.shape(1) : 0;
    if (start > std::numeric_limits<int64_t>::max() - count) throw InvalidArgument("a candidate is out of range.");
    const Blocks blocks{seed, read<uint32_t>(numbers, num_blocks), num_blocks, 0, nullptr, nullptr};
    const auto* from = read<float>(scores, num_blocks * count);
    auto* to_indices = write<int64_t>(indices, num_blocks);
    auto* to_values = write<double>(values, num_blocks);
    nb::gil_scoped_release release;
    std::vector<Chosen> chosen(num_blocks);
    choose_by_scores(blocks, from, start, count, chosen.data());
    copy_chosen(chosen, to_indices, to_values);
}

void bound_select(uint64_t seed, const ReadArray& numbers, const ReadArray& a, const ReadArray& b,
                  const nb::object& table, size_t count, bool is_noisy, size_t num_threads, const WriteArray& indices,
                  const WriteArray& values) {
    const Call call(seed, numbers, a, b, table, 0, count);
    const size_t num_blocks = call.blocks.num_blocks;
    auto* to_indices = write<int64_t>(indices, num_blocks);
    auto* to_values = write<double>(values, num_blocks);
    nb::gil_scoped_release release;
    std::vector<Chosen> chosen(num_blocks);
    choose(call.blocks, call.table, count, is_noisy, num_threads, chosen.data());
    copy_chosen(chosen, to_indices, to_values);
}

void bound_search(uint64_t seed, const ReadArray& numbers, const ReadArray& a, const ReadArray& b,
                  const ReadArray& greatest, size_t cap, bool is_sorted, size_t num_threads, const WriteArray& indices,
                  const WriteArray& num_candidates, const WriteArray& capped) {
    const Call call(seed, numbers, a, b, nb::none(), 0, cap);
    const size_t num_blocks = call.blocks.num_blocks;
    const Arrivals arrivals{cap, is_sorted, read<double>(greatest, num_blocks)};
    const Searches searches{write<int64_t>(indices, num_blocks), write<int64_t>(num_candidates, num_blocks),
                            write<bool>(capped, num_blocks)};
    nb::gil_scoped_release release;
    search(call.blocks, arrivals, num_threads, searches);
}

}  // namespace

void bind_random(nb::module_& module) {
    using nb::arg;
    module.def("random_words", &bound_words, arg("seed"), arg("purpose"), arg("numbers").noconvert(),
               arg("items").noconvert(), arg("num_places"), arg("words").noconvert());
    module.def("random_normals", &bound_map<uint32_t, random_normals>, arg("words").noconvert(),
               arg("normals").noconvert());
    module.def("normal_quantiles", &bound_map<double, normal_quantiles>, arg("p").noconvert(),
               arg("quantiles").noconvert());
    module.def("random_logs", &bound_map<double, random_logs>, arg("x").noconvert(), arg("logs").noconvert());
    module.def("fill_candidates", &bound_candidates, arg("seed"), arg("number"), arg("start"), arg("count"),
               arg("z").noconvert());
    module.def("fill_scores", &bound_scores, arg("seed"), arg("numbers").noconvert(), arg("a").noconvert(),
               arg("b").noconvert(), arg("table").none(), arg("start"), arg("count"), arg("scores").noconvert());
    module.def("gumbel_argmax", &bound_gumbel_argmax, arg("seed"), arg("numbers").noconvert(),
               arg("scores").noconvert(), arg("start"), arg("indices").noconvert(), arg("values").noconvert());
    module.def("select", &bound_select, arg("seed"), arg("numbers").noconvert(), arg("a").noconvert(),
               arg("b").noconvert(), arg("table").none(), arg("count"), arg("is_noisy"), arg("num_threads"),
               arg("indices").noconvert(), arg("values").noconvert());
    module.def("search", &bound_search, arg("seed"), arg("numbers").noconvert(), arg("a").noconvert(),
               arg("b").noconvert(), arg("greatest").noconvert(), arg("cap"), arg("is_sorted"), arg("num_threads"),
               arg("indices").noconvert(), arg("num_candidates").noconvert(), arg("capped").noconvert());
}

}  // namespace fewbits
