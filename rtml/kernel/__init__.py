"""The merge of what was read, compiled: for plans of nothing but aggregates of fixed width.

`answer_columns` is what a server calls. It uses the compiled `_merge` where that was built and knows all of a plan's
aggregates, and `rtml.answer` otherwise: the same values, but for the last digits of floats.
"""
