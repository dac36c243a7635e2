//! Helpers of the tests: simulated pair, packet builder, lab pieces.
