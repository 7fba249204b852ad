"""The playground's captions are read back: other scenes, phrasings and words than any training clip has."""

import pytest

from kling.prompt import understand
from tests.kling.prompts.grammar import prompts


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "ja"])
def test_held_out_captions_are_understood(language):
    found = total = 0
    for text, graph in prompts(250, language):
        understood = understand(text)
        assert understood.language == language
        total, found = total + 1, found + understood.graph.matches(graph)
    assert total == 250 and found / total >= 0.95
