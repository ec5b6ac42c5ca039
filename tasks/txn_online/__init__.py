"""Online transaction scheduling: from a buffer of ten pending transactions, name the one to run next."""
