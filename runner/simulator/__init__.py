"""A local Messages API for trial runs without a key, and for every fault the tests need."""
