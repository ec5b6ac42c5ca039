"""Prefix-friendly tables: order rows and columns so that prompts made of a table's rows share long prefixes."""
