"""Pure logic, no I/O: what to send next, how text joins, when a document is finished."""
