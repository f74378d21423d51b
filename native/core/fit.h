// Choosing the integer model, and the models of classes of rows, that code given integers in the fewest bytes.
//
// The same choices and the same costs as fewbits/models/fit.py and histogram.py, which say why they are made so.
// Costs are integers in 1/65536 bit.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "model.h"
#include "shipped.h"
#include "spectrum.h"
#include "table.h"

namespace fewbits {

struct FittedModel {
    IntegerModel model;
    int shipped = -1;  // the code of the shipped table it was given, -1 if another or none
    int64_t cost = 0;  // of the integers and of the description
};

struct FittedRows {
    std::vector<FittedModel> models;
    std::optional<FittedModel> class_model;  // none where one model is for all rows
    int64_t cost = 0;
};

FittedModel fit_model(const Spectrum& spectrum, const Shipped& shipped);

// Arguments as of `spectra_of_rows`, there for the same T; at least two classes.
template <typename T>
FittedRows fit_rows(const T* values, size_t num_rows, size_t row_length, const int64_t* classes, size_t num_classes,
                    const Shipped& shipped);

// The same, or one model for all rows where that costs no more. `class_bytes`, at most 2^20, are what the caller will
// write for each class.
template <typename T>
FittedRows best_fit(const T* values, size_t num_rows, size_t row_length, const int64_t* classes, size_t num_classes,
                    int64_t class_bytes, const Shipped& shipped);

// How often integers occur: ascending values, none twice, and counts, none of them 0.
struct Occurrences {
    const int64_t* values;
    const int64_t* counts;
    size_t size;
};

// The table of consecutive values that codes integers in the fewest bits, or none if all integers are one value.
// `occurrences` has at least one value, none is 2^15 or more from 0; `elsewhere` further integers lie outside of them.
std::optional<Table> histogram_table(Occurrences occurrences, int64_t elsewhere);

}  // namespace fewbits
