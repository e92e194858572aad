"""The tasks that a speech model was trained on beside conversation: saying a text, and writing down speech."""

from __future__ import annotations

from slm_plugin.stages import asr, tts
from slm_serve.backends.protocol import SamplingParams
from slm_serve.conversation import DEFAULT_MAX_TOKENS
from slm_serve.interleave.constraint import Constraint
from slm_serve.job import Job
from slm_serve.prompt import Ids, Turn, room
from slm_serve.protocol_audio import SpeechRequest, TranscriptionRequest
from slm_serve.service import Service


async def speaking(service: Service, request: SpeechRequest) -> Job:
    """Return the job of saying a text, in the words of the TTS stage.

    Raises:
        RequestError: The model, the voice or the length of the text cannot be used.
        EngineError: The engine is away.
    """
    voice = service.voice(request.voice, "voice")
    instruction = request.instructions or tts.INSTRUCTION
    spaced = instruction if instruction[-1].isspace() else f"{instruction} "
    prompt, most = await _prompt(service, request.model, [spaced + request.input], request.max_tokens, "input")
    params = SamplingParams(
        max_tokens=most,
        temperature=request.temperature,
        seed=request.seed,
        stop_token_ids=(service.end_id,),
    )
    return Job(prompt, params, request.model, sections=False, speech=True, voice=voice)


async def listening(service: Service, request: TranscriptionRequest, units: tuple[int, ...]) -> Job:
    """Return the job of writing down speech, in the words of the ASR stage.

    Raises:
        RequestError: The model or the length of the recording cannot be used.
        EngineError: The engine is away.
    """
    ids = Ids(tuple(service.vocabulary.ids(units)))
    prompt, most = await _prompt(service, request.model, [asr.INSTRUCTION, ids], request.max_tokens, "file")
    words_alone = Constraint("text")
    params = SamplingParams(
        max_tokens=most,
        temperature=request.temperature,
        seed=request.seed,
        stop_token_ids=(service.end_id,),
        constraint=words_alone,
    )
    return Job(prompt, params, request.model, sections=False, speech=False, constraint=words_alone)


async def _prompt(
    service: Service, model: str, parts: list[str | Ids], wish: int | None, param: str
) -> tuple[list[int], int]:
    card = await service.card(model)
    prompt = await service.in_worker(service.prompts.build, [Turn("user", tuple(parts))], card.context, param)
    limits = [limit for limit in (wish, room(card.context, len(prompt), param)) if limit is not None]
    return prompt, min(limits, default=DEFAULT_MAX_TOKENS)
