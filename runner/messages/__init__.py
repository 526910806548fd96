"""One streamed call to the Messages API: adapter, error kinds, pace, model traits."""
