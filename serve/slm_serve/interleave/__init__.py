"""Which kind of token may follow which: constraints on answers, and answers that have gone wrong.

With ``slm serve --interleave-processor`` the engine itself keeps to a constraint
(:mod:`~slm_serve.interleave.processor`); without, what breaks it is dropped on its way to the client
(:mod:`~slm_serve.interleave.constraint`). Malformed answers are ended by :mod:`~slm_serve.interleave.form`.
"""
