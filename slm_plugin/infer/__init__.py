"""``slm infer``: a model's answers to whole sets of spoken questions."""
