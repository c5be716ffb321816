"""The science and its steps: from text to a measured student."""
