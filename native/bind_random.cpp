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

template <class T>
using Array = nb::ndarray<T, nb::c_contig, nb::device::cpu>;
using Floats = Array<const float>;
using Words = Array<const uint32_t>;
using Reals = Array<const double>;

// Sizes are below 2^47, those of arrays in memory, where they are multiplied.
template <class Each>
void require_size(const Each& array, size_t size) {
    if (array.size() != size) throw InvalidArgument("two arrays differ in size.");
    if (reinterpret_cast<uintptr_t>(array.data()) % alignof(typename Each::Scalar) != 0) {
        throw InvalidArgument("an array is not aligned.");
    }
}

void bound_words(uint64_t seed, uint32_t purpose, const Words& numbers, const Array<const uint64_t>& items,
                 size_t num_places, const Array<uint32_t>& words) {
    const size_t count = items.size();
    const bool number_each = numbers.size() != 1;
    if (purpose > 0xFF || num_places > size_t{1} << 26) throw InvalidArgument("a counter has no such place.");
    require_size(numbers, number_each ? count : 1);
    require_size(items, count);
    require_size(words, count * num_places);
    nb::gil_scoped_release release;
    random_words(seed, purpose, numbers.data(), number_each, items.data(), count, num_places, words.data());
}

// One number of each number.
template <class T, void (*fill)(const T*, size_t, double*)>
void bound_map(const Array<const T>& in, const Array<double>& out) {
    require_size(in, in.size());
    require_size(out, in.size());
    nb::gil_scoped_release release;
    fill(in.data(), in.size(), out.data());
}

void bound_candidates(uint64_t seed, uint32_t number, uint64_t start, size_t count, const Array<float>& z) {
    if (count == 0) return;
    require_size(z, z.size() / count * count);
    nb::gil_scoped_release release;
    fill_candidates(seed, number, start, count, z.size() / count, z.data());
}

// What the arrays of a call say, checked against each other. Blocks have a number each; a table may be none.
struct Call {
    Call(uint64_t seed, const Words& numbers, const Floats& a, const Floats& b, const nb::object& z, uint64_t start,
         size_t count)
        : blocks{seed, numbers.data(), numbers.size(), a.ndim() == 2 ? a.shape(1) : 0, a.data(), b.data()} {
        require_size(numbers, blocks.num_blocks);
        require_size(a, blocks.num_blocks * blocks.dim);
        require_size(b, a.size());
        if (start > std::numeric_limits<int64_t>::max() - count) throw InvalidArgument("a candidate is out of range.");
        if (z.is_none()) return;
        held = nb::cast<Floats>(z, false);
        if (held.ndim() != 2 || held.shape(0) != blocks.dim) throw InvalidArgument("a table has another dimension.");
        require_size(held, held.size());
        table = {held.data(), held.shape(1)};
        if (start > table.num_candidates || count > table.num_candidates - start) {
            throw InvalidArgument("a table has fewer candidates.");
        }
    }

    Blocks blocks;
    CandidateTable table;
    Floats held;
};

void bound_scores(uint64_t seed, const Words& numbers, const Floats& a, const Floats& b, const nb::object& table,
                  uint64_t start, size_t count, const Array<float>& scores) {
    const Call call(seed, numbers, a, b, table, start, count);
    require_size(scores, call.blocks.num_blocks * count);
    nb::gil_scoped_release release;
    fill_scores(call.blocks, call.table, start, count, scores.data());
}

void copy_chosen(const std::vector<Chosen>& chosen, int64_t* indices, double* values) {
    for (size_t i = 0; i < chosen.size(); ++i) {
        if (chosen[i].candidate < 0) throw InvalidArgument("no candidate of a block has a score that is a number.");
        indices[i] = chosen[i].candidate;
        values[i] = chosen[i].value;
    }
}

void bound_gumbel_argmax(uint64_t seed, const Words& numbers, const Floats& scores, uint64_t start,
                         const Array<int64_t>& indices, const Array<double>& values) {
    const size_t num_blocks = numbers.size(), count = scores.ndim() == 2 ? scores.shape(1) : 0;
    if (start > std::numeric_limits<int64_t>::max() - count) throw InvalidArgument("a candidate is out of range.");
    require_size(numbers, num_blocks);
    require_size(scores, num_blocks * count);
    require_size(indices, num_blocks);
    require_size(values, num_blocks);
    nb::gil_scoped_release release;
    std::vector<Chosen> chosen(num_blocks);
    choose_by_scores({seed, numbers.data(), num_blocks, 0, nullptr, nullptr}, scores.data(), start, count,
                     chosen.data());
    copy_chosen(chosen, indices.data(), values.data());
}

void bound_select(uint64_t seed, const Words& numbers, const Floats& a, const Floats& b, const nb::object& table,
                  size_t count, size_t num_threads, const Array<int64_t>& indices, const Array<double>& values) {
    const Call call(seed, numbers, a, b, table, 0, count);
    require_size(indices, call.blocks.num_blocks);
    require_size(values, call.blocks.num_blocks);
    nb::gil_scoped_release release;
    std::vector<Chosen> chosen(call.blocks.num_blocks);
    choose(call.blocks, call.table, count, num_threads, chosen.data());
    copy_chosen(chosen, indices.data(), values.data());
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
               arg("b").noconvert(), arg("table").none(), arg("count"), arg("num_threads"),
               arg("indices").noconvert(), arg("values").noconvert());
}

}  // namespace fewbits
