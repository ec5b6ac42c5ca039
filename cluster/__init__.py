"""Ray versions of the ledger, the evaluator and the islands, around the same loop as `adrs run --local`."""
