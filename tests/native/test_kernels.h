// Tests of the inner loops, called directly: all must do what the checked functions of wide.h do.
#pragma once

namespace fewbits {

void test_decoding_loops();
void test_encoding_loops();
void test_encoding_at_the_limits_of_states();
void test_mapping_loops();
void test_placing_loops();
void test_packing_loops();
void test_joining_loops();

}  // namespace fewbits
