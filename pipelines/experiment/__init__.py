"""Experiments: variants of one recipe, compared with statistics.

    config       what an experiment's file may say           plan    its trials, and the steps of all of them
    results      what comes out: cells, claims, verdicts      report  the step that reads the evaluations
    statistics   tests, corrections, power                    page    one offline HTML page
    effects      main effects of a grid                       verb    ``babelray experiment``

Importing this loads no model library, and neither transformers nor ray.
"""
