"""From words to a scene graph (four levels), and from fields to a prompt."""
