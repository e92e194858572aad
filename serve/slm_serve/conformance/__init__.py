"""What of OpenAI's API this server does, parameter by parameter: :mod:`~slm_serve.conformance.table`.

The tests send every example of the table and hold its parameters against those of the ``openai`` SDK;
``python -m slm_plugin.reference`` writes it as a page of the documentation.
"""
