"""Engines: what runs a language model. Each gives a ``pipelines.generation.Generator``.

vllm      vLLM in the process of the actor
endpoint  an OpenAI-compatible server over HTTP
"""
