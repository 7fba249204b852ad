"""Where prompt, camera and physics meet: the ScenePlan and the control tensor made from it."""
