"""The steps of curation, numbered in the order of the recipe (data/pipeline.py). Each takes a Unit and gives a Unit."""
