// Matrices coded a column at a time, each with a step and a scale of its own, errors fed back (docs/payload/sic.md).
//
// The NumPy code of fewbits.quantize.columns is the specification. Matrices lie here column after column, their rows in
// the order of their codes; all columns share the paths of one trellis, element r of a column being on path r mod their
// number.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "float_type.h"
#include "output.h"
#include "trellis_search.h"

namespace fewbits {

// Which model each element has: its column's code plus its row's, within 0 ... num_models - 1.
struct ElementModels {
    const int32_t* row_codes;  // ascending
    size_t num_rows;
    size_t num_models;

    uint32_t of(int32_t column_code, size_t row) const {
        return of_sum(static_cast<int64_t>(column_code) + row_codes[row]);
    }

    uint32_t of_sum(int64_t code) const {
        const int64_t last = static_cast<int64_t>(num_models) - 1;
        return static_cast<uint32_t>(code < 0 ? 0 : code > last ? last : code);
    }
};

// Adds to `counts` (num_models) how many elements of columns with these codes have each model.
void count_models(const ElementModels& models, const int32_t* codes, size_t num_columns, int64_t* counts);

// How errors of rows add up along `num_sums` directions, and what of the sums is taken off the rows to come. 0: not at all.
struct RowFeedback {
    size_t num_sums = 0;
    const float* felt = nullptr;    // (num_rows, num_sums): what an error of 1 adds to the sums
    const float* shares = nullptr;  // (num_sums, num_rows): what of the sums is taken off a row
    size_t segment = 0;  // rows between two times that it is: whole steps of all paths, at most kWeightBlock
    size_t looked_at = 1;           // segments whose levels are looked at again as more rows come
};

// How columns are quantised.
struct ColumnSearch {
    ElementModels models;
    size_t num_paths;  // 0: no trellis
    const TrellisShifts* shifts;  // by model
    const float* prices;          // kPrices for each model
    const float* row_units;       // what a row's magnitudes are multiplied by before they are averaged
    const double* scales;         // ascending: of a mean magnitude above k of them, in steps, the column's code is k
    size_t num_scales;
    RowFeedback rows{};
};

// Sums and numbers of how far quotients lie beyond their levels, outwards, by model and kind: levels 0, -1, 1, others.
struct ColumnSums {
    double* totals;   // 4 for each model
    int64_t* counts;  // 4 for each model
};

// Quantises columns one after the other; what a column's error adds to those after it is taken off them first.
//
// `columns` (count, num_rows) become their reconstructions; feedback (count, count): the share of column i in column j
// at [i, j]; steps (count). Fills codes (count) and levels (count, num_rows). `states` of all paths are carried on.
// False if a quotient is 2^20 or more from 0.
bool code_columns(const ColumnSearch& search, size_t count, float* columns, const float* feedback, const float* steps,
                  TrellisStates& states, int32_t* codes, int32_t* levels, const ColumnSums& sums);

// How columns are decoded. Levels lie model after model, within one column after column.
struct ColumnLevels {
    ElementModels models;
    size_t num_paths;  // 0: no trellis
    const int32_t* levels;
    const int8_t* small_levels;  // or their lowest bytes, if not null; those that are others are far levels
    const FarLevel* far_levels;  // by ascending index
    size_t num_far_levels;
    const size_t* starts;  // of each model's levels; num_models + 1
    const int32_t* codes;  // of columns
    size_t num_columns;
    const TrellisShifts* shifts;  // by model
    const float* steps;           // by column
    const float* row_scales;
    const int32_t* places;  // of rows in the matrix that is written
    unsigned char* room;    // of any values, aligned to 4 bytes, for columns that are turned into rows together
    size_t room_size;       // bytes; too few are as none
};

// Writes the values (num_rows, num_columns) as words of a type; false if one is not finite.
//
// Throws Corrupt if the models do not have as many levels as `starts` says, InvalidArgument if levels are bytes and a shift
// is not of whole 256ths from -1/2 to 255/256 or a step below 2^-118.
bool column_values(const ColumnLevels& coded, FloatType type, unsigned char* out);

}  // namespace fewbits
