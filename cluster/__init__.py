"""Ray, storage and execution: steps, artifacts and tables. Knows nothing about retrieval."""
