"""Built-in tasks, a package each; loaded by path under private names, so that no user folder shadows them."""
