"""Held-out prompts of the playground's grammar, with their graphs, in the form kling.prompt.study reads.

    python -m tests.kling.prompts.grammar OUT.jsonl [COUNT]

Seeds of the benchmark split: other scenes, and families and words of the grammar that the training split never uses.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from data.playground.captions import captions
from data.playground.sample import sample
from data.playground.splits import seed_of
from kling.prompt.graph import SceneGraph


def prompts(count: int, language: str, *, split: str = "bench") -> Iterator[tuple[str, SceneGraph]]:
    """``count`` prompts of one language, one scene after the other."""
    number = 0
    while count > 0:
        seed = seed_of(split, number)
        graph = sample(seed)
        for caption in captions(graph, seed=seed, split=split):
            if caption.language == language and count > 0:
                count -= 1
                yield caption.text, graph
        number += 1


def main() -> None:
    out, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 500
    with out.open("w") as file:
        for language in ("en", "ja"):
            for text, graph in prompts(count, language):
                row = {"prompt": text, "language": language, "graph": json.loads(graph.to_json())}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
