"""What is in a clip, from its pixels alone: labels of scene, objects and actions, and where everything goes."""
