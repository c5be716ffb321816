"""Meta-learning: which tasks, episodes and learners (MAML, MAML-Align). Importing this loads no model library."""
