"""The built-in collection: parallel passages about the world, generated from CLDR."""

from pipelines.sources.atlas.source import AtlasSource

__all__ = ["AtlasSource"]
