"""Pages and figures from plain data: nothing here reads a ledger, a store or a communicator."""
