/* Compiled into python-multem ahead of its own sources (-include).
 *
 * MULTEM draws the seed of its random ice from std::random_device and offers no way to choose it.
 * Here std::random_device becomes a class that reads the environment variable MULTEM_SEED, so the
 * same seed gives the same ice to the bit; without the variable the ice is random as before.
 */
#pragma once

#include <cstdlib>
#include <random>

namespace std {

class seeded_random_device {
 public:
  using result_type = unsigned int;
  static constexpr result_type min() { return random_device::min(); }
  static constexpr result_type max() { return random_device::max(); }

  result_type operator()() const {
    const char *seed = std::getenv("MULTEM_SEED");
    if (seed != nullptr) {
      return static_cast<result_type>(std::strtoul(seed, nullptr, 10));
    }
    return random_device()();
  }
};

}  // namespace std

#define random_device seeded_random_device
