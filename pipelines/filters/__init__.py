"""Filters: what a search is limited to.

fields      the metadata of documents: typed fields, which a source keeps because a recipe names them
predicates  a condition on the fields: the tree that JSON and text become, its check, and what it holds for
text        the short form of the command line: year >= 2020 and section in ("a", "b")
subset      ids, a condition, or both; and the documents of an index that these are
"""
