"""Speech gateway in front of a stock vLLM server, speaking OpenAI's HTTP API.

The flow of a request: :mod:`~slm_serve.protocol` parses it, :mod:`~slm_serve.workers` turn recordings
into units, :mod:`~slm_serve.prompt` builds token ids, a :mod:`~slm_serve.backends` engine generates,
:mod:`~slm_serve.interleave` keeps the answer in form, :mod:`~slm_serve.splitter` separates text from
units, :mod:`~slm_serve.answer` finds the sections, :mod:`~slm_serve.workers` speak the units beside the
text, and :mod:`~slm_serve.api` writes OpenAI's shapes.
"""
