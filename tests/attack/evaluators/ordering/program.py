"""Rows of a table in an order in which neighbours share long beginnings."""


# EVOLVE-BLOCK-START
def reorder(rows):
    """Return the rows, in another order."""
    return sorted(rows, key=lambda row: row[-1])


# EVOLVE-BLOCK-END
