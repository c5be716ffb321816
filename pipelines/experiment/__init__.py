"""Experiments: variants of one recipe, compared with statistics.

    config       what an experiment's file may say            plan     its trials, and the steps of all of them
    claims       what is asked of the variants                report   the step that reads their evaluations
    results      what was measured, and what follows          page     one offline HTML page
    statistics   tests, corrections, power                    verb     ``babelray experiment``
    effects      what the axes of a grid do

Importing this loads no model library, and neither transformers nor ray.
"""
