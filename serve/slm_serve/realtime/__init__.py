"""Conversations over a WebSocket, in the events of OpenAI's Realtime API.

:mod:`~slm_serve.realtime.session` takes the client's events (:mod:`~slm_serve.realtime.events`) in turn:
sound goes to the :mod:`~slm_serve.realtime.listening` buffer, which finds turns by voice activity, turns
become items of the :mod:`~slm_serve.realtime.conversation`, and a
:mod:`~slm_serve.realtime.response` answers it.
"""
