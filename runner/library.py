"""The library face: open a store, submit jobs, run them, read documents."""
