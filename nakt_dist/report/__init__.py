"""From run records to tables, figures and one page; never touches a network."""
