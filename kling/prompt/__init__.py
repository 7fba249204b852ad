"""From words to a scene graph (four levels), and from fields to a prompt."""

from kling.prompt.understand import Understanding, understand

__all__ = ["Understanding", "understand"]
