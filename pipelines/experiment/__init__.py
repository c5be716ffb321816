"""Experiments: what they measured (``results``), the tests of their claims (``statistics``), the effects of a grid
(``effects``), and the page that shows them (``page``). These know nothing of recipes, steps and Ray."""
